/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the verifier need not know. It follows each constant that a later branch asks for to the end of the
 * program, so that a decision with twenty outcomes makes twenty times the work of all that comes after.
 * A number that a 0 out of a map was added to is any number to it.
 */
#ifndef ODM_BLUR_H
#define ODM_BLUR_H

static __always_inline void odm_blur_addr(struct odm_addr *addr, u32 zero)
{
	addr->w[0] += zero;
	addr->w[1] += zero;
	addr->w[2] += zero;
	addr->w[3] += zero;
}

static __always_inline struct odm_decision odm_blur(struct odm_decision d, u32 zero)
{
	d.verdict += zero;
	d.reason += zero;
	d.type += zero;
	d.silent += zero;
	return d;
}

/* The compiler would count a loop down from where it ends, which the verifier can't follow. */
#define ODM_KEEP_COUNT(i) asm volatile("" : "+r"(i))

#endif
