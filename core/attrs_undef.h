/* Ends one inclusion of core/attrs.def. No include guard. */
#undef ATTRS
#undef INT
#undef INDEX
#undef AXIS
#undef FLOAT
#undef NUMBER
#undef FREE
#undef BOOL
#undef AXES
#undef INTS
#undef SIZES
#undef DTYPE
#undef ENUM
#undef TEXT
#undef NUMBERS
#undef END
