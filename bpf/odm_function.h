/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Functions that the verifier looks at once, for themselves, instead of once for each way that leads to
 * them: "global" functions. It knows nothing of what they return, so that what was found out within is not
 * followed to the end of the program either.
 *
 * BCC puts each function into a text of its own and links none. So a call is written as one of a helper
 * with a number that no helper has, and odm_agent/datapath/install/functions.py makes it a call of
 * NAME_body, whose code it puts behind the program's. There is one argument, since BCC takes a second one
 * for a register of the traced CPU; it points to a struct that is initialised to its last byte, and which
 * the body must test for NULL. The result is a number.
 */
#ifndef ODM_FUNCTION_H
#define ODM_FUNCTION_H

#define ODM_FUNCTION(number, result, name, argument)                                               \
	static result (*const name)(const argument *) =                                            \
		(void *)(0x0d000000 | (number) << 12 | sizeof(argument))

#endif
