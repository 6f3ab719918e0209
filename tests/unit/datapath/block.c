/* bpf/odm_block.h for user space, with the map's words in an array. */
#include <arpa/inet.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
struct bpf_spin_lock {
	__u32 val;
};
#define bpf_ntohl ntohl
#define bpf_htonl htonl
#include "../../../bpf/odm_abi.h"

static u64 words[ODM_BLOCK_WORDS];

static u64 *lookup(u32 *word)
{
	return *word < ODM_BLOCK_WORDS ? &words[*word] : NULL;
}

static struct {
	u64 *(*lookup)(u32 *word);
} odm_untyped_blocks = { lookup };

static inline bool odm_is_v4(const struct odm_addr *a)
{
	return a->w[0] == 0 && a->w[1] == 0 && a->w[2] == bpf_htonl(0x0000ffff);
}

#include "../../../bpf/odm_block.h"

void set_word(u32 word, u64 value)
{
	words[word] = value;
}

bool is_in_untyped_block(const struct odm_addr *addr)
{
	return odm_is_in_untyped_block(addr);
}
