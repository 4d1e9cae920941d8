/* Internal to the parser of the text form: lexing (lex.c), nodes (parse_node.c), the rest (parse.c). */
#ifndef KN_PARSE_H
#define KN_PARSE_H
#include "graph/internal.h"
#include "graph/map.h"
#include "graph/syntax.h"
#include "graph/versions.h"

enum {
  KN_TEXT_MAX = 64 << 20,  /* bytes of a text */
  KN_VALUES_MAX = 1 << 19, /* values in a graph */
  KN_TREES_MAX = 100000,   /* constants, leaves and tables in arguments and results */
  KN_SYMBOLS_MAX = 256     /* named sizes */
};

typedef struct kn_parser {
  kn_context *ctx;
  kn_builder b;
  const char *text, *p, *end;
  kn_status status; /* the first failure */
  int depth;        /* of regions */
  int list_depth;   /* of types of lists */
  uint32_t ntrees, nvalues;
  kn_map values, slots;
  const kn_versions *versions; /* that a file was written with; NULL: those of now */
} kn_parser;

/* A value as written: %name, %name.7, %7, %"odd name" */
typedef struct kn_written {
  kn_span key;      /* what follows % */
  const char *name; /* NULL when unnamed; in the graph's arena */
  const char *at;
} kn_written;

/* lex.c. Functions give false (or NULL) after a failure, which is set once with line and column. */
bool kn_parse_fail(kn_parser *p, const char *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool kn_parse_nomem(kn_parser *p);
bool kn_parse_built(kn_parser *p, const char *at); /* takes over the builder's failure, if any; false then */
void kn_skip(kn_parser *p);                        /* blanks, newlines, comments */
char kn_peek(kn_parser *p);                /* the next character of this line after blanks; 0 at its end */
bool kn_accept(kn_parser *p, char c);      /* on this line */
bool kn_accept_over(kn_parser *p, char c); /* after newlines and comments too */
bool kn_expect(kn_parser *p, char c);      /* after newlines and comments too */
kn_span kn_read_word(kn_parser *p);        /* letters, digits, _ and points; empty when there is none */
bool kn_span_is(kn_span s, const char *word);
/* A quoted string, decoded into the arena and ended by a zero. `zeros`: it may hold zero bytes itself. */
bool kn_read_string(kn_parser *p, bool zeros, const char **s, size_t *n);
bool kn_read_name(kn_parser *p, const char **name); /* a plain word, or a quoted string */
bool kn_read_value(kn_parser *p, kn_written *out);
bool kn_read_int(kn_parser *p, int64_t *out);
/* An integer, float, true or false. */
bool kn_read_scalar(kn_parser *p, kn_scalar *out);
/* The end of a line, with the place in its comment, NULL without. */
bool kn_read_line_end(kn_parser *p, const kn_where **where);

/* parse.c */
bool kn_parse_type(kn_parser *p, kn_vtype *out);
kn_value *kn_parse_use(kn_parser *p); /* a value defined before */
bool kn_parse_define(kn_parser *p, const kn_written *w, kn_value *v);
/* parse_node.c: nodes up to `}`, yield, continue_if or return, none of which is consumed. */
bool kn_parse_nodes(kn_parser *p);

#endif
