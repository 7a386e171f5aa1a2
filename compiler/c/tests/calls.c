// What the header promises, call by call: `calls PROGRAM.snn IDS LOGITS`, where LOGITS is what `snnc logits` wrote for the ids
// 1, 2, ..., IDS, as a NumPy file. Prints the text that the command is compared with.

#include "snnc.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "line %d: %s; last error: %s\n", __LINE__, #condition, snnc_error());                      \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static bool show(const char *piece, size_t bytes, void *data) {
    (void)data;
    return fwrite(piece, 1, bytes, stdout) == bytes;
}

static bool stop_at_third(const char *piece, size_t bytes, void *data) {
    (void)piece;
    (void)bytes;
    return ++*(int *)data < 3;
}

static void wrong_calls(const char *path) {
    SnncModel *model = NULL;
    CHECK(snnc_load("no/such/file.snn", NULL, &model) == SNNC_ERROR && model == NULL);
    CHECK(strstr(snnc_error(), "no/such/file.snn") != NULL);
    CHECK(snnc_error_code()[0] == 'E');
    CHECK(snnc_load(NULL, NULL, &model) == SNNC_ERROR && strstr(snnc_error(), "path") != NULL);
    CHECK(snnc_load("\xff", NULL, &model) == SNNC_ERROR && strstr(snnc_error(), "UTF-8") != NULL);
    CHECK(snnc_load(path, NULL, NULL) == SNNC_ERROR);
    SnncLoadOptions options = snnc_load_options();
    options.context = 1u << 31;
    CHECK(snnc_load(path, &options, &model) == SNNC_ERROR && strstr(snnc_error(), "context") != NULL);
    options = snnc_load_options();
    options.threads = 1u << 31;
    CHECK(snnc_load(path, &options, &model) == SNNC_ERROR && strstr(snnc_error(), "threads") != NULL);
    float logit = 0;
    uint32_t id = 0;
    CHECK(snnc_logits(NULL, &id, 1, true, &logit, 1) == SNNC_ERROR && strstr(snnc_error(), "model") != NULL);
    CHECK(snnc_context(NULL) == 0 && snnc_vocabulary(NULL) == 0 && snnc_spikes_layers(NULL) == 0);
    snnc_free(NULL);
    snnc_spikes_free(NULL);
}

static void logits(const SnncModel *model, uint32_t *ids, size_t count, const char *path) {
    size_t width = snnc_vocabulary(model), room = count * width;
    float *all = malloc((room + width) * sizeof *all), *last = all + room, *expected = malloc(room * sizeof *expected);
    CHECK(all != NULL && expected != NULL);
    CHECK(snnc_logits(model, ids, count, false, all, room - 1) == SNNC_NO_ROOM);
    CHECK(snnc_logits(model, ids, count, false, NULL, room) == SNNC_ERROR);
    CHECK(snnc_logits(model, ids, count, false, all, room) == SNNC_OK);
    CHECK(snnc_logits(model, ids, count, true, last, width) == SNNC_OK);
    CHECK(memcmp(last, all + room - width, width * sizeof *all) == 0);
    // The numbers of the file stand at its end.
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fseek(file, -(long)(room * sizeof *expected), SEEK_END) == 0);
    CHECK(fread(expected, sizeof *expected, room, file) == room);
    fclose(file);
    CHECK(memcmp(all, expected, room * sizeof *all) == 0);
    CHECK(snnc_logits(model, ids, 0, false, all, room) == SNNC_ERROR);
    uint32_t beyond = (uint32_t)width;
    CHECK(snnc_logits(model, &beyond, 1, true, last, width) == SNNC_ERROR);
    CHECK(snnc_logits(model, ids, (size_t)-1, true, last, width) == SNNC_ERROR);
    free(all);
    free(expected);
}

static void words(const SnncModel *model) {
    uint32_t ids[64];
    char text[64];
    size_t count = 0, bytes = 0;
    const char *given = "The king sat";
    CHECK(snnc_encode(model, given, false, NULL, 0, &count) == SNNC_NO_ROOM && count > 0 && count <= 64);
    CHECK(snnc_encode(model, given, false, ids, 64, &count) == SNNC_OK);
    CHECK(snnc_decode(model, ids, count, text, 4, &bytes) == SNNC_NO_ROOM && bytes == strlen(given) + 1);
    CHECK(snnc_decode(model, ids, count, text, sizeof text, &bytes) == SNNC_OK && strcmp(text, given) == 0);
    CHECK(snnc_encode(model, NULL, false, ids, 64, &count) == SNNC_ERROR);
}

static void generate(const SnncModel *model) {
    SnncGenerateOptions options = snnc_generate_options();
    options.max_new_tokens = 12;
    CHECK(snnc_generate(model, "Once upon a time", &options, show, NULL) == SNNC_OK);
    options.temperature = 0.8f;
    options.seed = 7;
    printf("\n");
    CHECK(snnc_generate(model, "Once upon a time", &options, show, NULL) == SNNC_OK);
    printf("\n");
    int pieces = 0;
    CHECK(snnc_generate(model, "Once", NULL, stop_at_third, &pieces) == SNNC_STOPPED && pieces == 3);
    CHECK(snnc_generate(model, "Once", NULL, NULL, NULL) == SNNC_OK);
    options.temperature = NAN;
    CHECK(snnc_generate(model, "Once", &options, show, NULL) == SNNC_ERROR);
    CHECK(strstr(snnc_error(), "temperature") != NULL);
    CHECK(snnc_generate(model, NULL, NULL, show, NULL) == SNNC_ERROR);
}

static void spikes(const SnncModel *model, uint32_t *ids, size_t count) {
    SnncSpikes *runs[2] = {NULL, NULL};
    CHECK(snnc_spikes(model, ids, count, NULL, false, &runs[0]) == SNNC_OK);
    CHECK(snnc_spikes(model, ids, count, NULL, true, &runs[1]) == SNNC_OK);
    size_t layers = snnc_spikes_layers(runs[0]), all = 0;
    CHECK(layers > 0 && layers == snnc_spikes_layers(runs[1]));
    for (size_t i = 0; i < layers; i++) {
        SnncLayer layer, stepped;
        CHECK(snnc_spikes_layer(runs[0], i, &layer) == SNNC_OK && snnc_spikes_layer(runs[1], i, &stepped) == SNNC_OK);
        CHECK(layer.tokens == count && layer.width > 0 && strlen(layer.site) > 0 && strlen(layer.neuron) > 0);
        // Weighted spikes add up to levels.
        int32_t *levels = calloc(count * layer.width, sizeof *levels);
        CHECK(levels != NULL);
        for (size_t s = 0; s < layer.spikes; s++) {
            CHECK(layer.spike_token[s] < count && layer.spike_neuron[s] < layer.width);
            CHECK(layer.spike_timestep[s] < layer.timesteps);
            levels[layer.spike_token[s] * layer.width + layer.spike_neuron[s]] +=
                layer.weights[layer.spike_timestep[s]] * layer.spike_sign[s];
        }
        CHECK(memcmp(levels, layer.levels, count * layer.width * sizeof *levels) == 0);
        free(levels);
        // Every timestep that is run gives the spikes that levels spell.
        CHECK(layer.spikes == stepped.spikes && strcmp(layer.site, stepped.site) == 0);
        CHECK(memcmp(layer.spike_neuron, stepped.spike_neuron, layer.spikes * sizeof *layer.spike_neuron) == 0);
        CHECK(memcmp(layer.spike_sign, stepped.spike_sign, layer.spikes * sizeof *layer.spike_sign) == 0);
        all += layer.spikes;
    }
    CHECK(all > 0);
    SnncLayer layer;
    CHECK(snnc_spikes_layer(runs[0], layers, &layer) == SNNC_ERROR && snnc_spikes_layer(runs[0], 0, NULL) == SNNC_ERROR);
    snnc_spikes_free(runs[0]);
    snnc_spikes_free(runs[1]);
    SnncSpikes *one = NULL;
    CHECK(snnc_spikes(model, ids, count, "no.such.site", false, &one) == SNNC_ERROR && one == NULL);
}

int main(int arguments, char **argument) {
    CHECK(arguments == 4);
    wrong_calls(argument[1]);
    SnncModel *model = NULL;
    SnncLoadOptions options = snnc_load_options();
    options.threads = 2;
    CHECK(snnc_load(argument[1], &options, &model) == SNNC_OK);
    CHECK(snnc_context(model) > 0 && strlen(snnc_version()) > 0);
    size_t count = strtoul(argument[2], NULL, 10);
    uint32_t *ids = malloc(count * sizeof *ids);
    CHECK(ids != NULL);
    for (size_t i = 0; i < count; i++) {
        ids[i] = (uint32_t)i + 1;
    }
    logits(model, ids, count, argument[3]);
    words(model);
    generate(model);
    spikes(model, ids, count);
    free(ids);
    snnc_free(model);
    return 0;
}
