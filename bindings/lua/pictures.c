/* Pictures and sound in strings as tensors, and back: kiln.io.decode_image, encode_png, decode_wav … */
#include "bindings/io/image.h"
#include "bindings/io/wav.h"
#include "bindings/lua/pictures.h"
#include "bindings/lua/readers.h"

/* ---- pictures ---- */

kn_image_mode kl_check_mode(lua_State *L, const char *name, const char *mode) {
  kn_image_mode m = KN_IMAGE_UNCHANGED;
  if (!kn_image_mode_parse(mode, &m))
    kl_error(L, KN_ARG, "%s: there is no mode '%s'; there are" KN_IMAGE_MODES(KL_NAME), name, mode);
  return m;
}

/* decode_image(bytes [, mode | {mode = "UNCHANGED", max_pixels =}]) */
static int decode_image(lua_State *L) {
  size_t n;
  const void *p = kl_check_bytes(L, 1, "decode_image", &n);
  const char *mode = "UNCHANGED";
  int64_t most = 0;
  if (lua_type(L, 2) == LUA_TSTRING)
    mode = lua_tostring(L, 2);
  else
    kl_read_options(L, 2, "decode_image",
                    (const kl_option[]){{"mode", KL_OPTION_TEXT, (void *)&mode, 0},
                                        {"max_pixels", KL_OPTION_INT, &most, 1},
                                        {NULL, KL_OPTION_INT, NULL, 0}});
  kn_image_mode m = kl_check_mode(L, "decode_image", mode);
  kn_tensor **slot = kl_reserve_tensor(L), *t;
  kl_checked(L, kn_image_decode(kl_context(L), p, n, m, most, &t), "decode_image");
  kl_fill_tensor(L, slot, t);
  return 1;
}

/* The tensor at 1, with its data there. */
static kn_tensor *check_data(lua_State *L, const char *name) {
  kn_tensor *t = kl_test_tensor(L, 1);
  if (!t) kl_error(L, KN_ARG, "%s: a tensor is needed, got %s", name, kl_kind(L, 1));
  if (!t->storage) kl_error(L, KN_STATE, "%s: the elements are known only when the graph runs", name);
  kl_check(L, kn_read_data(kl_context(L), t));
  return t;
}

static int give_bytes(lua_State *L, kn_bytes *b, kn_status st, const char *name) {
  kl_checked(L, st, name);
  lua_pushlstring(L, b->p, b->n);
  kl_give_back(L, -2);
  return 1;
}

static int64_t read_number(lua_State *L, const char *name, const char *option, int64_t otherwise,
                           int64_t least, int64_t most) {
  int64_t v = otherwise;
  kl_read_options(L, 2, name,
                  (const kl_option[]){{option, KL_OPTION_INT, &v, least}, {NULL, KL_OPTION_INT, NULL, 0}});
  if (v > most)
    kl_error(L, KN_ARG, "%s: %s must be at most %lld, got %lld", name, option, (long long)most, (long long)v);
  return v;
}

/* encode_png(t [, {compression_level = 6}]) */
static int encode_png(lua_State *L) {
  kn_tensor *t = check_data(L, "encode_png");
  int level = (int)read_number(L, "encode_png", "compression_level", 6, 0, 9);
  kn_bytes *b = kl_push_bytes(L);
  return give_bytes(L, b, kn_png_encode(kl_context(L), t, level, b), "encode_png");
}

/* encode_jpeg(t [, {quality = 75}]) */
static int encode_jpeg(lua_State *L) {
  kn_tensor *t = check_data(L, "encode_jpeg");
  int quality = (int)read_number(L, "encode_jpeg", "quality", 75, 1, 100);
  kn_bytes *b = kl_push_bytes(L);
  return give_bytes(L, b, kn_jpeg_encode(kl_context(L), t, quality, b), "encode_jpeg");
}

static int encode_ppm(lua_State *L) {
  kn_tensor *t = check_data(L, "encode_ppm");
  kn_bytes *b = kl_push_bytes(L);
  return give_bytes(L, b, kn_ppm_encode(kl_context(L), t, b), "encode_ppm");
}

/* ---- sound ---- */

/* decode_wav(bytes): float32 [channels, frames], and the rate. */
static int decode_wav(lua_State *L) {
  size_t n;
  uint32_t rate = 0;
  const void *p = kl_check_bytes(L, 1, "decode_wav", &n);
  kn_tensor **slot = kl_reserve_tensor(L), *t;
  kl_checked(L, kn_wav_decode(kl_context(L), p, n, &t, &rate), "decode_wav");
  kl_fill_tensor(L, slot, t);
  lua_pushinteger(L, rate);
  return 2;
}

/* encode_wav(t, rate [, {dtype = "int16"}]) */
static int encode_wav(lua_State *L) {
  kn_tensor *t = check_data(L, "encode_wav");
  const char *dtype = "int16";
  kn_wav_kind kind = KN_WAV_I16;
  int whole;
  lua_Integer rate = lua_tointegerx(L, 2, &whole);
  if (lua_type(L, 2) != LUA_TNUMBER || !whole || rate < 1 || rate > UINT32_MAX)
    return kl_error(L, KN_ARG, "encode_wav: the rate must be a positive integer, got %s", kl_kind(L, 2));
  kl_read_options(
      L, 3, "encode_wav",
      (const kl_option[]){{"dtype", KL_OPTION_TEXT, (void *)&dtype, 0}, {NULL, KL_OPTION_INT, NULL, 0}});
  if (!kn_wav_kind_parse(dtype, &kind))
    return kl_error(L, KN_ARG, "encode_wav: a WAV cannot hold '%s'; it can" KN_WAV_KINDS(KL_NAME), dtype);
  kn_bytes *b = kl_push_bytes(L);
  return give_bytes(L, b, kn_wav_encode(kl_context(L), t, (uint32_t)rate, kind, b), "encode_wav");
}

void kl_open_pictures(lua_State *L) {
  static const luaL_Reg functions[] = {{"decode_image", decode_image},
                                       {"encode_png", encode_png},
                                       {"encode_jpeg", encode_jpeg},
                                       {"encode_ppm", encode_ppm},
                                       {"decode_wav", decode_wav},
                                       {"encode_wav", encode_wav},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
