/* embed OUT.c FOLDER FILE.lua...: writes the files as C arrays, with the table bindings/lua/files.h declares.
 * A build tool; not part of kiln. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void quit(const char *what, const char *name) {
  fprintf(stderr, "embed: %s %s\n", what, name);
  exit(1);
}

/* The bytes of a file, as the initialiser of an array. */
static void write_bytes(FILE *out, const char *folder, const char *name, int number) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *in = fopen(path, "rb");
  if (!in) quit("cannot read", path);
  fprintf(out, "static const char file_%d[] = {", number);
  int column = 0;
  for (int c; (c = getc(in)) != EOF; column++) {
    if (c > 127) c -= 256; /* plain char may be signed */
    fprintf(out, "%s%d,", column % 24 ? "" : "\n", c);
  }
  if (ferror(in)) quit("cannot read", path);
  fclose(in);
  fprintf(out, "0};\n\n");
}

/* "nn/functional.lua" is the module kiln.nn.functional. */
static void write_row(FILE *out, const char *name, int number) {
  size_t n = strlen(name) - strlen(".lua");
  fputs("    {\"kiln.", out);
  for (size_t i = 0; i < n; i++) putc(name[i] == '/' ? '.' : name[i], out);
  fprintf(out, "\", \"=kiln/%s\", file_%d, sizeof file_%d - 1},\n", name, number, number);
}

int main(int argc, char **argv) {
  if (argc < 3) quit("usage:", "embed OUT.c FOLDER FILE.lua...");
  FILE *out = fopen(argv[1], "wb");
  if (!out) quit("cannot write", argv[1]);
  fputs(
      "/* Made by lua/kiln/embed.c from the Lua files named below. */\n#include \"bindings/lua/files.h\"\n\n",
      out);
  for (int i = 3; i < argc; i++) {
    if (strlen(argv[i]) < 5 || strcmp(argv[i] + strlen(argv[i]) - 4, ".lua"))
      quit("not a .lua file:", argv[i]);
    write_bytes(out, argv[2], argv[i], i);
  }
  fputs("const kl_file kl_files[] = {\n", out);
  for (int i = 3; i < argc; i++) write_row(out, argv[i], i);
  fputs("    {0, 0, 0, 0},\n};\n", out);
  if (fclose(out)) quit("cannot write", argv[1]);
  return 0;
}
