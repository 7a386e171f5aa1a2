// snnc for C: load a model, ask for logits, text and spikes. docs/embed.md has a program.
//
// Made by cbindgen from compiler/c/src.

#ifndef SNNC_H
#define SNNC_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// How a call ended.
typedef enum {
  // All is well.
  SNNC_OK = 0,
  // It failed; snnc_error and snnc_error_code say why.
  SNNC_ERROR = 1,
  // The caller's function asked for an end.
  SNNC_STOPPED = 2,
  // The room that was passed is too small. What is needed was written to the count; nothing else was.
  SNNC_NO_ROOM = 3,
} SnncStatus;

// A model in memory. Several threads may use one at once.
typedef struct SnncModel SnncModel;

// What the neurons of a run did.
typedef struct SnncSpikes SnncSpikes;

// How a model is run. No result depends on the threads.
typedef struct {
  // Threads of one call; 0 takes one per core.
  uint32_t threads;
  // Tokens that a sequence may have; 0 takes the network's context.
  uint32_t context;
  // Run every timestep, spike by spike, which is slower and gives the same bits.
  bool stepped;
} SnncLoadOptions;

// How tokens are drawn.
typedef struct {
  // New tokens, at most.
  size_t max_new_tokens;
  // What logits are divided by; 0 takes the likeliest token.
  float temperature;
  // Only so many likeliest tokens take part; 0 is all of them.
  size_t top_k;
  // Only the likeliest tokens that have this probability together take part; 1 is all of them.
  float top_p;
  // Only tokens at least so many times as probable as the likeliest take part; 0 is all of them.
  float min_p;
  // What divides the logits of tokens that were there lately; 1 changes nothing.
  float repeat_penalty;
  // Equal seeds draw equal tokens.
  uint64_t seed;
  // Drop the oldest half where the context is full, instead of stopping.
  bool slide;
} SnncGenerateOptions;

// Told of each piece of text as it is written: bytes of UTF-8, no zero byte behind them. Returns whether to go on.
typedef bool (*SnncShow)(const char *piece, size_t bytes, void *data);

// A layer of neurons and its spikes. All pointers are valid until the spikes are freed.
typedef struct {
  // Where it stands, such as "h.0.mlp.hidden".
  const char *site;
  // The neurons, as the IR spells them.
  const char *neuron;
  // Timesteps.
  size_t timesteps;
  // Neurons.
  size_t width;
  // What a spike of each timestep weighs, `[timesteps]`.
  const int32_t *weights;
  // Tokens of the run.
  size_t tokens;
  // Levels, `[tokens, width]`: the sum of each neuron's weighted spikes.
  const int32_t *levels;
  // Spikes. Spike i is of token `spike_token[i]` at timestep `spike_timestep[i]`, by neuron `spike_neuron[i]`, with the sign
  // `spike_sign[i]`.
  size_t spikes;
  // Places of tokens in the run, from 0, ascending, `[spikes]`.
  const uint32_t *spike_token;
  // Timesteps from 0, ascending within a token, `[spikes]`.
  const uint16_t *spike_timestep;
  // Places of neurons in the layer, from 0, `[spikes]`.
  const uint32_t *spike_neuron;
  // 1 or -1, `[spikes]`.
  const int8_t *spike_sign;
} SnncLayer;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Why the last call of this thread that gave SNNC_ERROR did. The text is valid until the next call of the thread fails.
const char *snnc_error(void);

// The code of that error, such as "E0402". docs/errors.md lists them.
const char *snnc_error_code(void);

// The version of snnc, such as "0.1.0".
const char *snnc_version(void);

// One thread per core, the network's context, time collapsed.
SnncLoadOptions snnc_load_options(void);

// The likeliest 40 tokens.
SnncGenerateOptions snnc_generate_options(void);

// Loads a .snn file, an ONNX file or a Hugging Face folder. `options` may be null. The model is freed with snnc_free.
SnncStatus snnc_load(const char *path, const SnncLoadOptions *options, SnncModel **model);

// Frees a model; null is nothing to free. No other thread may be using it.
void snnc_free(SnncModel *model);

// Tokens that a sequence may have; 0 for null.
size_t snnc_context(const SnncModel *model);

// Logits per token; 0 for null.
size_t snnc_vocabulary(const SnncModel *model);

// Logits of `count` ids: `[count, vocabulary]`, row by row, or `[vocabulary]` of the last id with `last_only`. `room` is how many
// floats `logits` can take.
SnncStatus snnc_logits(const SnncModel *model,
                       const uint32_t *ids,
                       size_t count,
                       bool last_only,
                       float *logits,
                       size_t room);

// Ids of a text, and how many there are. With `start`, the tokens that stand before every text of this network come first.
// SNNC_NO_ROOM says that `ids` cannot take them; call again with room for `count`.
SnncStatus snnc_encode(const SnncModel *model,
                       const char *words,
                       bool start,
                       uint32_t *ids,
                       size_t room,
                       size_t *count);

// The text of ids as UTF-8 with a zero byte behind it, and its bytes with that one. SNNC_NO_ROOM says that `words` cannot take
// them; call again with room for `bytes`.
SnncStatus snnc_decode(const SnncModel *model,
                       const uint32_t *ids,
                       size_t count,
                       char *words,
                       size_t room,
                       size_t *bytes);

// Continues a text, and tells `show` of each piece. `options` may be null. `data` is passed on to `show`.
SnncStatus snnc_generate(const SnncModel *model,
                         const char *prompt,
                         const SnncGenerateOptions *options,
                         SnncShow show,
                         void *data);

// Runs ids and keeps what neurons do: of the layers that `site` means, such as "h.0.mlp" or "*.mlp.hidden", or of all where it is
// null. With `stepped`, every timestep is run; the spikes are the same. They are freed with snnc_spikes_free.
SnncStatus snnc_spikes(const SnncModel *model,
                       const uint32_t *ids,
                       size_t count,
                       const char *site,
                       bool stepped,
                       SnncSpikes **spikes);

// Layers of a run; 0 for null.
size_t snnc_spikes_layers(const SnncSpikes *spikes);

// The layer at a place, from 0.
SnncStatus snnc_spikes_layer(const SnncSpikes *spikes, size_t place, SnncLayer *layer);

// Frees spikes; null is nothing to free.
void snnc_spikes_free(SnncSpikes *spikes);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SNNC_H */
