// Pickle is never read: loading one can run code. What these files are is said in one line instead.
#ifndef EM_FORMATS_PICKLE_H
#define EM_FORMATS_PICKLE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/fail.h"

// Whether a file's name is one that PyTorch weights have: .bin, .pt, .pth, .ckpt, .pkl.
bool em_pickle_name(const char *path);

// EMBER_E_UNSUPPORTED with the line how to convert it, when the file's name or its first bytes (a
// protocol-2..5 pickle, or a zip archive as torch.save writes) say that it is a pickle.
ember_status em_pickle_refuse(const char *path, const unsigned char *data,
                              size_t size) EMBER_CHECKED;

#endif
