// Read before every C++ file of llama.cpp. GCC 12 takes the configuration of AMX's tiles for 8 bytes instead of 64, drops what a
// program writes behind them, and tiles without rows then end the process. These two say the right size.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

static inline void load_tile_configuration(const void *at) {
    __asm__ volatile("ldtilecfg %0" ::"m"(*(const char(*)[64])at));
}

static inline void store_tile_configuration(void *at) {
    __asm__ volatile("sttilecfg %0" : "=m"(*(char(*)[64])at));
}

#define _tile_loadconfig load_tile_configuration
#define _tile_storeconfig store_tile_configuration
#endif
