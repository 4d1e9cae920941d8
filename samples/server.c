/* A server: eight threads answer requests with one graph. The file is loaded once; each thread has a session
 * of its own over it and takes the next request from one queue.
 *
 *   server MODEL.kiln SOCKET                 serves until SIGTERM or SIGINT, then prints what it did
 *   server --ask SOCKET IMAGES LABELS        a client: asks for every image of the IDX files, prints how many
 *                                            answers are right
 *
 * MODEL is what digits.lua saved. SOCKET is a Unix socket that keeps messages apart (SOCK_SEQPACKET): a
 * request is a number of the client's and 64 pixels from 0 to 16; its answer is that number and a line of
 * text, "CLASS CONFIDENCE", or "error: " and why. Answers come in the order in which they are ready. */
#define _POSIX_C_SOURCE 200809L
#include "kiln.h"
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 8, CLIENTS = 32, WAITING = 256, PIXELS = 64, MOST_STEPS = 10000, IN_FLIGHT = 64 };

typedef struct request {
  uint32_t number;
  unsigned char pixels[PIXELS];
} request;

typedef struct answer {
  uint32_t number;
  char text[60]; /* terminated */
} answer;

static void die(const char *what, const char *why) {
  fprintf(stderr, "server: %s: %s\n", what, why);
  exit(1);
}

static double now(void) { /* microseconds */
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* ---- the queue ---- */

typedef struct client {
  int socket;
  int users; /* who reads from it and jobs of its; the last one closes it. Under the queue's lock */
} client;

typedef struct job {
  client *from;
  double came;
  request ask;
} job;

typedef struct queue {
  pthread_mutex_t lock;
  pthread_cond_t filled, drained;
  job jobs[WAITING];
  unsigned first, count;
  int closed;
} queue;

/* Waits while the queue is full: clients are then read more slowly, and nothing grows. */
static void put(queue *q, const job *j) {
  pthread_mutex_lock(&q->lock);
  while (q->count == WAITING) pthread_cond_wait(&q->drained, &q->lock);
  j->from->users++;
  q->jobs[(q->first + q->count++) % WAITING] = *j;
  pthread_cond_signal(&q->filled);
  pthread_mutex_unlock(&q->lock);
}

/* 0 when there is nothing left and nothing more comes. */
static int take(queue *q, job *j) {
  pthread_mutex_lock(&q->lock);
  while (!q->count && !q->closed) pthread_cond_wait(&q->filled, &q->lock);
  int got = q->count > 0;
  if (got) {
    *j = q->jobs[q->first];
    q->first = (q->first + 1) % WAITING;
    q->count--;
    pthread_cond_signal(&q->drained);
  }
  pthread_mutex_unlock(&q->lock);
  return got;
}

static void leave(queue *q, client *c) {
  pthread_mutex_lock(&q->lock);
  if (!--c->users) close(c->socket);
  pthread_mutex_unlock(&q->lock);
}

static void close_queue(queue *q) {
  pthread_mutex_lock(&q->lock);
  q->closed = 1;
  pthread_cond_broadcast(&q->filled);
  pthread_mutex_unlock(&q->lock);
}

/* ---- a worker ---- */

typedef struct worker {
  pthread_t thread;
  queue *q;
  kiln_context *ctx; /* a child: shares backends and memory with the first, has its own errors */
  kiln_session *session;
  kiln_tensor *x;
  float image[PIXELS]; /* x's elements */
  uint64_t answered, failed;
  double waited, worst; /* microseconds from a request to its answer: all together, the longest */
} worker;

static void reply(worker *w, const job *j) {
  answer a = {.number = j->ask.number};
  int64_t class;
  double confidence;
  for (int k = 0; k < PIXELS; k++) w->image[k] = (float)j->ask.pixels[k] / 16.0f;
  if (kiln_session_run(w->session) || kiln_session_get_integer(w->session, "1", &class) ||
      kiln_session_get_float(w->session, "2", &confidence)) {
    w->failed++;
    snprintf(a.text, sizeof a.text, "error: %s", kiln_session_error(w->session));
  } else {
    w->answered++;
    snprintf(a.text, sizeof a.text, "%" PRId64 " %.6f", class, confidence);
  }
  /* A client that does not read its answers is let go: no thread waits for it. */
  if (send(j->from->socket, &a, sizeof a, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
    shutdown(j->from->socket, SHUT_RDWR);
  leave(w->q, j->from);
  double took = now() - j->came;
  w->waited += took;
  if (took > w->worst) w->worst = took;
}

static void *work(void *ud) {
  worker *w = ud;
  for (job j; take(w->q, &j);) reply(w, &j);
  return NULL;
}

static void start(worker *w, queue *q, kiln_context *ctx, kiln_graph *graph) {
  static const int64_t sizes[] = {1, 1, 8, 8};
  w->q = q;
  if (kiln_context_child(ctx, &w->ctx) || kiln_session_new(w->ctx, graph, &w->session) ||
      kiln_tensor_wrap(w->ctx, KILN_FLOAT32, 4, sizes, w->image, NULL, NULL, &w->x))
    die("kiln", kiln_error(w->ctx ? w->ctx : ctx));
  if (kiln_session_set_tensor(w->session, "x", w->x)) die("kiln", kiln_session_error(w->session));
  kiln_session_set_step_limit(w->session, MOST_STEPS); /* no input keeps a thread for ever */
  if (pthread_create(&w->thread, NULL, work, w)) die("pthread_create", "no thread");
}

/* ---- the server ---- */

static volatile sig_atomic_t stopping;

static void stop(int number) {
  (void)number;
  stopping = 1;
}

static int open_socket(const char *path, struct sockaddr_un *address) {
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address->sun_path) die(path, "is too long for a socket");
  strcpy(address->sun_path, path);
  int s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  if (s < 0) die("socket", strerror(errno));
  return s;
}

/* What a client has sent. 0 when it is gone, or is none of ours. */
static int read_requests(queue *q, client *c) {
  for (int k = 0; k < IN_FLIGHT; k++) { /* then it is others' turn */
    job j = {.from = c, .came = now()};
    ssize_t got = recv(c->socket, &j.ask, sizeof j.ask, MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got != (ssize_t)sizeof j.ask) return 0;
    put(q, &j);
  }
  return 1;
}

/* A client takes a place that nobody uses any more; when there is none, or the process may not open another
 * socket, it waits at the door. */
static void let_in(queue *q, int door, client *clients, struct pollfd *open) {
  pthread_mutex_lock(&q->lock);
  int i = 0;
  while (i < CLIENTS && clients[i].users) i++;
  int s = i < CLIENTS ? accept(door, NULL, NULL) : -1;
  if (s >= 0) {
    clients[i] = (client){s, 1};
    open[i] = (struct pollfd){.fd = s, .events = POLLIN};
  }
  pthread_mutex_unlock(&q->lock);
  if (s < 0) poll(NULL, 0, 1);
}

/* Until the process is told to stop. */
static void listen_to(int door, queue *q, client *clients) {
  struct pollfd open[CLIENTS + 1];
  for (int i = 0; i < CLIENTS; i++) open[i] = (struct pollfd){.fd = -1};
  open[CLIENTS] = (struct pollfd){.fd = door, .events = POLLIN};
  while (!stopping) {
    if (poll(open, CLIENTS + 1, 100) <= 0) continue;
    for (int i = 0; i < CLIENTS; i++)
      if (open[i].fd >= 0 && open[i].revents && !read_requests(q, &clients[i])) {
        open[i].fd = -1;
        leave(q, &clients[i]);
      }
    if (open[CLIENTS].revents) let_in(q, door, clients, open);
  }
  close_queue(q);
  for (int i = 0; i < CLIENTS; i++)
    if (open[i].fd >= 0) leave(q, &clients[i]);
}

static void report(const worker *workers, const kiln_context *ctx, double us) {
  uint64_t answered = 0, failed = 0;
  double waited = 0, worst = 0;
  kiln_memory m = {.size = sizeof m};
  for (int i = 0; i < THREADS; i++) {
    const worker *w = &workers[i];
    printf("thread %d: %" PRIu64 " answers\n", i + 1, w->answered);
    answered += w->answered, failed += w->failed, waited += w->waited;
    if (w->worst > worst) worst = w->worst;
  }
  kiln_context_memory(ctx, &m);
  uint64_t all = answered + failed;
  printf("%" PRIu64 " answers, %" PRIu64
         " failed, in %.1f s; %.0f us from request to answer, %.0f at most; %zu kB\n",
         answered, failed, us * 1e-6, all ? waited / (double)all : 0, worst, m.peak / 1024);
}

static int serve(const char *model, const char *path) {
  static queue q = {.lock = PTHREAD_MUTEX_INITIALIZER,
                    .filled = PTHREAD_COND_INITIALIZER,
                    .drained = PTHREAD_COND_INITIALIZER};
  static worker workers[THREADS];
  static client clients[CLIENTS];
  kiln_context_options options = {.size = sizeof options, .threads = 1}; /* of one run: threads are ours */
  kiln_context *ctx;
  kiln_graph *graph;
  char error[512];
  if (kiln_context_new(&options, &ctx, error, sizeof error)) die("kiln", error);
  if (kiln_graph_load(ctx, model, NULL, &graph)) die("kiln", kiln_error(ctx));

  struct sockaddr_un address;
  int door = open_socket(path, &address);
  if (bind(door, (struct sockaddr *)&address, sizeof address) || listen(door, CLIENTS))
    die(path, strerror(errno));
  struct sigaction on_stop = {.sa_handler = stop};
  sigaction(SIGTERM, &on_stop, NULL);
  sigaction(SIGINT, &on_stop, NULL);
  for (int i = 0; i < THREADS; i++) start(&workers[i], &q, ctx, graph);
  printf("serving %s with %d threads\n", kiln_graph_name(graph), THREADS);
  fflush(stdout);

  double began = now();
  listen_to(door, &q, clients);
  for (int i = 0; i < THREADS; i++) pthread_join(workers[i].thread, NULL);
  report(workers, ctx, now() - began);
  for (int i = 0; i < THREADS; i++) {
    kiln_tensor_release(workers[i].x);
    kiln_session_free(workers[i].session);
    kiln_context_free(workers[i].ctx);
  }
  kiln_graph_release(graph);
  kiln_context_free(ctx);
  close(door);
  unlink(path);
  return 0;
}

/* ---- the client ---- */

/* The bytes of a file behind its header; *count gets how many. */
static unsigned char *read_file(const char *path, size_t header, size_t *count) {
  FILE *f = fopen(path, "rb");
  if (!f || fseek(f, 0, SEEK_END)) die(path, strerror(errno));
  long size = ftell(f);
  if (size < (long)header || fseek(f, (long)header, SEEK_SET)) die(path, "is too short");
  *count = (size_t)size - header;
  unsigned char *data = malloc(*count + 1);
  if (!data || fread(data, 1, *count, f) != *count) die(path, "cannot be read");
  fclose(f);
  return data;
}

static int ask(const char *path, const char *images, const char *labels) {
  size_t n, pixels, right = 0, failed = 0;
  unsigned char *image = read_file(images, 16, &pixels), *label = read_file(labels, 8, &n);
  if (pixels != n * PIXELS) die(images, "does not have an image for each label");
  struct sockaddr_un address;
  int s = open_socket(path, &address);
  if (connect(s, (struct sockaddr *)&address, sizeof address)) die(path, strerror(errno));
  for (size_t sent = 0, got = 0; got < n;) {
    if (sent < n && sent - got < IN_FLIGHT) {
      request r = {.number = (uint32_t)sent};
      memcpy(r.pixels, image + PIXELS * sent++, PIXELS);
      if (send(s, &r, sizeof r, MSG_NOSIGNAL) < 0) die(path, strerror(errno));
      continue;
    }
    answer a;
    if (recv(s, &a, sizeof a, 0) != (ssize_t)sizeof a || a.number >= n) die(path, "gave no answer");
    if (!strncmp(a.text, "error: ", 7)) {
      if (!failed++) fprintf(stderr, "server: %.*s\n", (int)sizeof a.text, a.text);
    } else
      right += strtol(a.text, NULL, 10) == label[a.number] + 1; /* classes count from 1 */
    got++;
  }
  printf("%zu of %zu right, %zu failed\n", right, n, failed);
  close(s);
  free(image);
  free(label);
  return failed > 0;
}

int main(int argc, char **argv) {
  if (argc == 3) return serve(argv[1], argv[2]);
  if (argc == 5 && !strcmp(argv[1], "--ask")) return ask(argv[2], argv[3], argv[4]);
  die("usage", "server MODEL.kiln SOCKET, or server --ask SOCKET IMAGES LABELS");
  return 1;
}
