"""What torch's functions do to the entries of a tensor, by their names: what a watcher and its rules must know."""

import torch

GATHERS = {"__getitem__", "index_select", "gather", "take", "take_along_dim", "flip", "roll", "repeat_interleave"}
"""Take entries, by an index or in another order; one may be taken twice."""

MAY_GROW = {"expand", "expand_as", "broadcast_to", "repeat", "tile", "unfold"}
"""Take entries, all of them, and may repeat them."""

IDENTITY_MOVES = {
    *("expand", "expand_as", "broadcast_to", "reshape", "reshape_as", "view", "view_as", "contiguous", "flatten"),
    *("unsqueeze", "squeeze", "unflatten", "ravel"),
}
"""Keep the order of the entries, where they do not repeat them."""

VIEWS = {
    *("reshape", "view", "view_as", "reshape_as", "unsqueeze", "squeeze", "transpose", "swapaxes", "permute"),
    *("movedim", "moveaxis", "flatten", "unflatten", "T", "mT", "t", "narrow", "select", "diagonal", "ravel"),
}
"""Take entries by shape alone, each at most once."""

MOVES = GATHERS | MAY_GROW | VIEWS | {"unbind", "split", "chunk", "tensor_split", "split_with_sizes", "contiguous"}
ADDS = {"add", "__add__", "__radd__", "sub", "subtract", "__sub__", "rsub", "__rsub__"}
TIMES = {"mul", "multiply", "__mul__", "__rmul__"}
DIVIDES = {"div", "divide", "true_divide", "__truediv__"}
COPIES = {"to", "double", "float", "type", "type_as", "contiguous", "clone", "positive", "__pos__"}
NEGATES = {"neg", "negative", "__neg__"}
LINEAR = {*ADDS, *COPIES, *NEGATES, "where", "masked_fill"}
"""Elementwise, and linear in all operands together."""

IN_PLACE = {
    **{"__iadd__": torch.add, "__isub__": torch.sub, "__imul__": torch.mul, "__itruediv__": torch.div},
    **{"add_": torch.add, "sub_": torch.sub, "mul_": torch.mul, "div_": torch.div},
    **dict.fromkeys(("__setitem__", "__set__", "__ipow__", "__imod__", "__ifloordiv__")),
}
"""Write into their first operand; the function that makes the same of it out of place, where there is one."""

PROPERTIES = {"T", "mT", "H", "mH", "data", "real", "imag"}
"""Attributes of a tensor that are computed from its entries."""

ELEMENTWISE = {
    *ADDS,
    *TIMES,
    *DIVIDES,
    *("__rtruediv__", "rtruediv", "pow", "__pow__", "__rpow__", "where", "maximum", "minimum", "max", "min", "clamp"),
    *("atan2", "hypot", "lerp", "xlogy", "xlog1py", "logaddexp", "logaddexp2", "addcmul", "addcdiv", "fmod"),
    *("binary_cross_entropy_with_logits", "remainder", "clip", "float_power", "masked_fill", "special_xlogy"),
    *("special_xlog1py", "fmax", "fmin"),
}
"""Of several operands, entry by entry."""

UNARY = {
    *COPIES,
    *NEGATES,
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "square", "reciprocal", "abs"),
    *("absolute", "__abs__", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh"),
    *("atanh", "arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh", "sigmoid", "logsigmoid", "log_sigmoid"),
    *("relu", "relu6", "elu", "selu", "celu", "gelu", "silu", "mish", "leaky_relu", "hardtanh", "logit", "erf", "erfc"),
    *("erfinv", "lgamma", "digamma", "polygamma", "i0", "sinc", "nan_to_num", "clamp_min", "clamp_max", "softsign"),
    *("special_expit", "special_logit", "special_gammaln", "special_digamma", "special_psi", "special_erf"),
    *("special_erfc", "special_erfcx", "special_erfinv", "special_ndtr", "special_ndtri", "special_log_ndtr"),
    *("special_i0", "special_i0e", "special_i1", "special_i1e", "special_log1p", "special_expm1", "special_exp2"),
    *("special_polygamma", "special_entr", "real", "softplus"),
}
"""Of one operand, entry by entry."""

VALUES_ONLY = {
    *("detach", "data", "item", "tolist", "numpy", "size", "dim", "numel", "stride", "storage_offset", "data_ptr"),
    *("__float__", "__int__", "__bool__", "__index__", "__len__", "__format__", "__repr__", "__hash__", "__str__"),
    *("is_floating_point", "is_complex", "is_contiguous", "isnan", "isfinite", "isinf", "get_device", "element_size"),
    *("gt", "ge", "lt", "le", "eq", "ne", "__gt__", "__ge__", "__lt__", "__le__", "__eq__", "__ne__", "greater"),
    *("all", "any", "argmax", "argmin", "argsort", "allclose", "equal", "sign", "zeros_like", "ones_like"),
    *("empty_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_ones", "new_empty", "new_full"),
    *("new_tensor", "result_type", "broadcast_shapes", "is_tensor", "__contains__", "ndimension", "nelement"),
    *("is_nonzero", "bool", "long", "int", "round", "floor", "ceil", "trunc", "searchsorted", "bucketize"),
}
"""Return what is not differentiable."""
