/* Damaged texts of graphs, and running what is still a graph: errors are answers, crashes are not. */
#ifndef SPEC_MUTATE_H
#define SPEC_MUTATE_H
#include "spec/small_run.h"
#include "spec/suite.h"

/* Where c stands after one more character: numbers in names, strings and comments are left alone. */
static inline bool in_number(const char *c, char *inside) {
  if (*inside == '"')
    *inside = *c == '"' && c[-1] != '\\' ? 0 : '"';
  else if (*inside == ';')
    *inside = *c == '\n' ? 0 : ';';
  else if (*inside == '%' && strchr(" ,:)}\n", *c))
    *inside = 0;
  else if (!*inside && strchr("\";%", *c))
    *inside = *c;
  return !*inside && *c >= '0' && *c <= '9';
}

/* One or two numbers in the text become others: the result is still a graph more often than after random
 * damage. */
static inline char *mutate_numbers(const char *text, random_state *r) {
  static const char *const others[] = {"0",  "1", "2",   "3",       "4",          "5",  "-1",
                                       "-2", "8", "100", "1000000", "4294967297", "0.5"};
  unsigned places = 0, target[2];
  char *out = malloc(strlen(text) + 64), inside = 0;
  size_t at = 0;
  for (const char *c = text; *c; c++) places += in_number(c, &inside);
  for (int i = 0; i < 2; i++) target[i] = random_below(r, places ? 2 * places : 1);
  places = 0;
  inside = 0;
  for (const char *c = text; *c; c++) {
    bool digit = in_number(c, &inside);
    if (digit && (places == target[0] || places == target[1]))
      at += (size_t)sprintf(out + at, "%s", others[random_below(r, sizeof others / sizeof *others)]);
    else
      out[at++] = *c;
    places += digit;
  }
  out[at] = 0;
  return out;
}

/* Swaps two value names. */
static inline void mutate_names(char *text, random_state *r) {
  char *at[2] = {NULL, NULL};
  for (int k = 0; k < 2; k++) {
    char *p = text + random_below(r, (unsigned)strlen(text));
    at[k] = strchr(p, '%');
  }
  if (!at[0] || !at[1]) return;
  size_t n = 1 + strspn(at[0] + 1, "0123456789"), m = 1 + strspn(at[1] + 1, "0123456789");
  if (n == m && n > 1) memcpy(at[0], at[1], n);
}

/* One type or attribute in the text has another device. */
static inline char *mutate_devices(const char *text, random_state *r) {
  static const char *const others[][2] = {{"@cuda", ""},           {"]", "]@cuda"},
                                          {"\"cuda\"", "\"cpu\""}, {"\"cpu\"", "\"cuda\""},
                                          {"@cuda", "@cuda:0"},    {"@cuda", "@cuda:7"}};
  const char *const *way = others[random_below(r, sizeof others / sizeof *others)];
  const char *at = strstr(text + random_below(r, (unsigned)strlen(text)), way[0]);
  const size_t n = strlen(text);
  char *out = malloc(n + 64);
  if (!at) return memcpy(out, text, n + 1);
  sprintf(out, "%.*s%s%s", (int)(at - text), text, way[1], at + strlen(way[0]));
  return out;
}

#endif
