/* Bytes of .kiln files, for suites that alter them. */
#ifndef SPEC_KILN_FILE_H
#define SPEC_KILN_FILE_H
#include "graph/checksum.h"
#include "graph/file.h"
#include "graph/text.h"
#include "spec/suite.h"
#include <unistd.h>

static inline char *slurp(const char *path, size_t *n) {
  FILE *f = fopen(path, "rb");
  ck_assert_ptr_nonnull(f);
  fseek(f, 0, SEEK_END);
  *n = (size_t)ftell(f);
  rewind(f);
  char *p = malloc(*n);
  ck_assert_uint_eq(fread(p, 1, *n, f), *n);
  fclose(f);
  return p;
}

static inline const char *temp_path(void) {
  static char path[64];
  snprintf(path, sizeof path, "/tmp/kiln-spec-%ld.kiln", (long)getpid());
  return path;
}

static inline kn_status try_load(kn_context *c, const void *p, size_t n) {
  kn_entry *e;
  uint32_t count;
  void *exact = malloc(n ? n : 1); /* so that a read past the end is seen */
  memcpy(exact, p, n);
  kn_status st = kn_file_load_memory(c, exact, n, NULL, NULL, &e, &count);
  free(exact);
  if (st == KN_OK) kn_file_free_entries(c->heap, e, count);
  return st;
}

/* Puts the right checksum into bytes that were changed. */
static inline void sign(char *p, size_t n) {
  static const char key[] = "\"kiln.checksum\":\"";
  char *at = NULL;
  for (size_t i = 0; i + 40 < n && !at; i++)
    if (!memcmp(p + i, key, sizeof key - 1)) at = p + i + sizeof key - 1;
  ck_assert_ptr_nonnull(at);
  memset(at, '0', 16);
  kn_crc *crc = malloc(sizeof *crc);
  kn_crc_start(crc);
  kn_crc_feed(crc, p, n);
  char digits[17];
  snprintf(digits, sizeof digits, "%016llx", (unsigned long long)kn_crc_value(crc));
  memcpy(at, digits, 16);
  free(crc);
}

/* The graph of a text. */
static inline kn_graph *graph_of(kn_context *c, const char *text) {
  kn_graph *g;
  OK(c, kn_graph_parse(c, text, strlen(text), &g));
  return g;
}

/* Puts `to` for every `from`, which is as long, and signs. */
static inline unsigned replace_all(char *p, size_t n, const char *from, const char *to) {
  const size_t len = strlen(from);
  unsigned count = 0;
  ck_assert_uint_eq(len, strlen(to));
  for (size_t i = 0; i + len <= n; i++)
    if (!memcmp(p + i, from, len)) memcpy(p + i, to, len), count++;
  sign(p, n);
  return count;
}

/* Bytes as the file at temp_path(). */
static inline void spit(const char *p, size_t n) {
  FILE *f = fopen(temp_path(), "wb");
  ck_assert_ptr_nonnull(f);
  ck_assert_uint_eq(fwrite(p, 1, n, f), n);
  ck_assert_int_eq(fclose(f), 0);
}

#endif
