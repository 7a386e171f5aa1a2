// Continues a text, piece by piece, and says how often the neurons fired while the prompt was read. From the repository's root:
//
//   cargo build --release --workspace
//   cc -std=c99 -I compiler/c/include examples/c/continue.c -L target/release -lsnnc_c -Wl,-rpath,"$PWD/target/release" -o continue
//   ./continue examples/models/tales/model.onnx "Once upon a time"

#include "snnc.h"

#include <stdio.h>
#include <stdlib.h>

static int fail(void) {
    fprintf(stderr, "%s: %s\n", snnc_error_code(), snnc_error());
    return EXIT_FAILURE;
}

static bool show(const char *piece, size_t bytes, void *data) {
    (void)data;
    return fwrite(piece, 1, bytes, stdout) == bytes && fflush(stdout) == 0;
}

int main(int arguments, char **argument) {
    if (arguments != 3) {
        fprintf(stderr, "usage: %s MODEL PROMPT\n", argument[0]);
        return 2;
    }
    SnncModel *model = NULL;
    if (snnc_load(argument[1], NULL, &model) != SNNC_OK) {
        return fail();
    }

    SnncGenerateOptions options = snnc_generate_options();
    options.max_new_tokens = 20;
    printf("%s", argument[2]);
    if (snnc_generate(model, argument[2], &options, show, NULL) != SNNC_OK) {
        return fail();
    }
    printf("\n");

    // The first call says how many ids there are.
    size_t count = 0;
    snnc_encode(model, argument[2], true, NULL, 0, &count);
    uint32_t *ids = malloc((count + 1) * sizeof *ids);
    if (ids == NULL || snnc_encode(model, argument[2], true, ids, count, &count) != SNNC_OK) {
        return fail();
    }

    // A network that was not compiled has no spikes.
    SnncSpikes *spikes = NULL;
    if (snnc_spikes(model, ids, count, NULL, false, &spikes) != SNNC_OK) {
        fprintf(stderr, "%s\n", snnc_error());
    }
    for (size_t i = 0; i < snnc_spikes_layers(spikes); i++) {
        SnncLayer layer;
        if (snnc_spikes_layer(spikes, i, &layer) != SNNC_OK) {
            return fail();
        }
        printf("%-28s %zu spikes of %zu neurons in %zu tokens\n", layer.site, layer.spikes, layer.width, layer.tokens);
    }

    snnc_spikes_free(spikes);
    free(ids);
    snnc_free(model);
    return EXIT_SUCCESS;
}
