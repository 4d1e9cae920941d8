/* embed OUT.c FILE.h...: writes each file as a C string, cu_text_FILE, without its #include lines, for
 * sources that devices compile. A build tool; not part of kiln. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void quit(const char *what, const char *name) {
  fprintf(stderr, "embed: %s %s\n", what, name);
  exit(1);
}

static void write_line(FILE *out, const char *line) {
  fputs("    \"", out);
  for (const char *c = line; *c && *c != '\n'; c++) {
    if (*c == '"' || *c == '\\') putc('\\', out);
    putc(*c, out);
  }
  fputs("\\n\"\n", out);
}

static void write_file(FILE *out, const char *path) {
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  char line[1024];
  FILE *in = fopen(path, "rb");
  if (!in) quit("cannot read", path);
  const int n = (int)strcspn(name, ".");
  fprintf(out, "\nextern const char cu_text_%.*s[];\nconst char cu_text_%.*s[] =\n", n, name, n, name);
  while (fgets(line, sizeof line, in)) {
    if (!strchr(line, '\n')) quit("a line is too long in", path);
    if (strncmp(line, "#include", 8)) write_line(out, line);
  }
  fputs("    \"\";\n", out);
  if (ferror(in)) quit("cannot read", path);
  fclose(in);
}

int main(int argc, char **argv) {
  if (argc < 3) quit("usage:", "embed OUT.c FILE.h...");
  FILE *out = fopen(argv[1], "wb");
  if (!out) quit("cannot write", argv[1]);
  fputs("/* Made by backends/cuda/embed.c. */\n", out);
  for (int i = 2; i < argc; i++) write_file(out, argv[i]);
  if (fclose(out)) quit("cannot write", argv[1]);
  return 0;
}
