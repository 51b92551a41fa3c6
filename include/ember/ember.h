/**
 * @file ember.h  All that a program which uses Ember needs. What one writes components with stands
 * in <ember/layer.h>, <ember/ops.h>, <ember/operation.h> and <ember/plugin.h>.
 */
#ifndef EMBER_EMBER_H
#define EMBER_EMBER_H

#include <ember/bench.h>
#include <ember/describe.h>
#include <ember/experts.h>
#include <ember/forward.h>
#include <ember/infer.h>
#include <ember/model.h>
#include <ember/runtime.h>
#include <ember/status.h>
#include <ember/tokenizer.h>
#include <ember/train.h>
#include <ember/version.h>

#endif
