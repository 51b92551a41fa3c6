// The documents of files, one after the other. A text file is one document (a very large one is
// cut, see below); of a .jsonl or .ndjson file every line is one, and of a .json file whose first
// line is an object with the text's key. All of them also compressed (.gz, .zst).
#ifndef EM_DATA_DOCUMENTS_H
#define EM_DATA_DOCUMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"

enum {
    EM_DOCUMENT_CUT = 16 << 20,    // text files are cut into documents of at most this, at an empty
                                   // line if there is one
    // A JSON line longer than this is dropped: it takes up to ten times its size while it is read
    // and cut into tokens, and compressed it may be tiny.
    EM_DOCUMENT_LONGEST = 64 << 20,
};

enum em_data_format {
    EM_DATA_AUTO, // by the name's ending
    EM_DATA_TEXT,
    EM_DATA_LINES, // every line of a text file is a document
    EM_DATA_JSONL,
};

struct em_document_options {
    const char *text_key; // of a JSON line; NULL: "text"
    enum em_data_format format;
};

// What was met on the way. Nothing is passed over without being counted here.
struct em_document_stats {
    uint64_t files, documents, bytes; // documents given out, and their raw bytes
    uint64_t empty;                   // documents without a byte other than white space
    uint64_t dropped;                 // JSON lines that could not be used
    uint64_t invalid_utf8;            // documents with bytes that are no UTF-8, which become U+FFFD
    uint64_t binary_files;            // passed over
    uint64_t json_as_text; // .json files that hold no lines of documents: read as plain text
    uint64_t cut;          // cuts of very large text files
};

// Borrowed until the next call.
struct em_document {
    const char *text;
    size_t size;
    const char *file;
    uint64_t line; // from 1; 0 for a document that is not a line
};

struct em_documents;

// Reads `count` files in order. The paths and the options are borrowed until close. With `strict`
// (what a user named is a file, not a folder) a binary file is EMBER_E_FORMAT instead of being
// passed over.
ember_status em_documents_open(char *const *paths, size_t count,
                               const struct em_document_options *options, bool strict,
                               struct em_documents **out) EMBER_CHECKED;
void em_documents_close(struct em_documents *documents); // NULL is fine

// *more = false at the end. Lines that cannot be used are dropped, the first few with a warning
// "file:line: reason". EMBER_E_FORMAT: a file of JSON lines none of which can be used.
ember_status em_documents_next(struct em_documents *documents, struct em_document *out,
                               bool *more) EMBER_CHECKED;
const struct em_document_stats *em_documents_stats(const struct em_documents *documents);

#endif
