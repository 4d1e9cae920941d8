/* `view` and `contiguous` of plain values: whether they show elements or copy them depends on how these lie,
 * which is followed to where the values come from. Where that does not tell, the tensor becomes a handle, of
 * which the recorder knows more. Private to this room. */
#ifndef KC_LIE_H
#define KC_LIE_H
#include "lua/capture/handle.h"
#include "lua/capture/interp.h"

void kc_lie_begin(kc_cap *c, uint64_t place);         /* before a call of the engine */
bool kc_lie_in_order(void *capture, kn_value *v);     /* asked by the recorder: `contiguous` gives v itself */
kc_res kc_lie_after(kc_cap *c, const kc_values *out); /* after it: what it viewed could be, or is refused */
/* Two tensors are told apart: where one is what `contiguous` gave of the other, it must be known which. */
kc_res kc_lie_pair(kc_cap *c, const kn_value *a, const kn_value *b);
/* At the end, when loops are closed: what was assumed of values that they carry holds, or they are handles.
 */
kc_res kc_lie_end(kc_cap *c);

#endif
