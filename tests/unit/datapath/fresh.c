/* bpf/odm_fresh.h for user space. */
#include <stdbool.h>
#include <stdint.h>

typedef uint64_t u64;
#include "../../../bpf/odm_fresh.h"

u64 siphash(u64 first, u64 second, u64 word)
{
	u64 key[2] = { first, second };

	return odm_siphash(key, word);
}

bool is_reserved(u64 id)
{
	return odm_is_reserved_id(id);
}
