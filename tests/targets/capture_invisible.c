/* Does one thing in a tight loop and checks that nothing happens that would not happen without a tracer. MODE names the thing. Prints
 * "ready"; on end of input it prints "ok ROUNDS", or "wrong: …" as soon as something is. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long rounds;

#define WRONG(...) do { printf("wrong: " __VA_ARGS__); printf(" (errno %d, round %ld)\n", errno, rounds); fflush(stdout); _exit(1); } while (0)
#define CHECK(condition) do { if (!(condition)) WRONG("%s", #condition); } while (0)

static int over(void)
{
	struct pollfd input = { 0, POLLIN, 0 };
	return poll(&input, 1, 0) > 0;
}

static int64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static int count_folder(const char *path)
{
	DIR *folder = opendir(path);
	int count = 0;
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

static int count_lines(const char *path)
{
	FILE *file = fopen(path, "r");
	int count = 0, c;
	while ((c = fgetc(file)) != EOF)
		count += c == '\n';
	fclose(file);
	return count;
}

static void epoll_mode(void)
{
	struct epoll_event event;
	int epoll = epoll_create1(0);
	for (; !over(); rounds++)
		CHECK(epoll_wait(epoll, &event, 1, 2) == 0);
}

static void poll_mode(void)
{
	int ends[2];
	CHECK(pipe(ends) == 0);
	struct pollfd reader = { ends[0], POLLIN, 0 };
	for (; !over(); rounds++) {
		CHECK(poll(&reader, 1, 2) == 0);
		struct timespec timeout = { 0, 1000000 };
		CHECK(ppoll(&reader, 1, &timeout, NULL) == 0);
		struct timeval wait = { 0, 1000 };
		fd_set set;
		FD_ZERO(&set);
		FD_SET(ends[0], &set);
		CHECK(select(ends[0] + 1, &set, NULL, NULL, &wait) == 0);
	}
}

static void nanosleep_mode(void)
{
	for (; !over(); rounds++) {
		struct timespec time = { 0, 2000000 };
		int64_t before = now();
		CHECK(nanosleep(&time, NULL) == 0);
		CHECK(now() - before >= 2000000);
		CHECK(clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL) == 0);
	}
}

static void sigtimedwait_mode(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (; !over(); rounds++) {
		struct timespec timeout = { 0, 2000000 };
		CHECK(sigtimedwait(&set, NULL, &timeout) == -1 && errno == EAGAIN);
		if (rounds % 3 == 0) {
			raise(SIGUSR1);
			CHECK(sigtimedwait(&set, NULL, &timeout) == SIGUSR1);
		}
	}
}

static void semop_mode(void)
{
	int id = semget(IPC_PRIVATE, 1, 0600);
	struct sembuf take = { 0, -1, 0 };
	CHECK(id >= 0);
	for (; !over(); rounds++) {
		struct timespec timeout = { 0, 2000000 };
		if (!(semtimedop(id, &take, 1, &timeout) == -1 && errno == EAGAIN)) {
			int error = errno;
			semctl(id, 0, IPC_RMID);
			errno = error;
			WRONG("semtimedop");
		}
	}
	semctl(id, 0, IPC_RMID);
}

static atomic_int futex_word;

static void futex_mode(void)
{
	for (; !over(); rounds++) {
		struct timespec timeout = { 0, 2000000 };
		CHECK(syscall(SYS_futex, &futex_word, FUTEX_WAIT, 0, &timeout, NULL, 0) == -1 && errno == ETIMEDOUT);
	}
}

static void recv_mode(void)
{
	int ends[2];
	char byte;
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	struct timeval timeout = { 0, 4000 };
	setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
	for (; !over(); rounds++) {
		CHECK(recv(ends[0], &byte, 1, 0) == -1 && errno == EAGAIN);
		CHECK(write(ends[1], "x", 1) == 1);
		CHECK(recv(ends[0], &byte, 1, 0) == 1 && byte == 'x');
	}
}

static void waitpid_mode(void)
{
	for (; !over(); rounds++) {
		CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
		pid_t child = fork();
		if (child == 0)
			_exit(7);
		int status;
		CHECK(waitpid(-1, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
	}
}

static volatile sig_atomic_t child_signals, alarms, ticks;
static void on_child(int signal) { child_signals++; }
static void on_alarm(int signal) { alarms++; }
static void on_tick(int signal) { ticks++; }

static void sigchld_mode(void)
{
	struct sigaction action = { .sa_handler = on_child, .sa_flags = SA_RESTART };
	sigaction(SIGCHLD, &action, NULL);
	for (; !over(); rounds++) {
		pid_t child = fork();
		if (child == 0)
			_exit(0);
		CHECK(waitpid(child, NULL, 0) == child);
		usleep(1000);
		CHECK(child_signals == rounds + 1);
	}
}

static void timers_mode(void)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	sigaction(SIGALRM, &action, NULL);
	action.sa_handler = on_tick;
	sigaction(SIGRTMIN, &action, NULL);
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN };
	timer_t timer;
	CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
	for (; !over(); rounds++) {
		struct itimerval once = { .it_value = { 0, 2000 } };
		int before = alarms;
		CHECK(setitimer(ITIMER_REAL, &once, NULL) == 0);
		struct itimerspec shot = { .it_value = { 0, 1000000 } };
		int tick = ticks;
		CHECK(timer_settime(timer, 0, &shot, NULL) == 0);
		int64_t limit = now() + 5000000000ll;
		while (alarms == before || ticks == tick) {
			CHECK(now() < limit);
			usleep(200);
		}
		CHECK(alarms == before + 1 && ticks == tick + 1);
	}
}

static void vfork_mode(void)
{
	for (; !over(); rounds++) {
		pid_t child = vfork();
		if (child == 0)
			_exit(3);
		int status;
		CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 3);
	}
}

static void *nothing(void *argument) { return (char *)argument + 1; }

static void threads_mode(void)
{
	for (; !over(); rounds++) {
		pthread_t threads[8];
		for (long i = 0; i < 8; i++)
			CHECK(pthread_create(&threads[i], NULL, nothing, (void *)i) == 0);
		for (long i = 0; i < 8; i++) {
			void *result;
			CHECK(pthread_join(threads[i], &result) == 0 && (long)result == i + 1);
		}
	}
}

static void memory_mode(void)
{
	size_t size = 1 << 20;
	char *fixed = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (; !over(); rounds++) {
		char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(p != MAP_FAILED);
		memset(p, rounds, size);
		p = mremap(p, size, 2 * size, MREMAP_MAYMOVE);
		CHECK(p != MAP_FAILED && p[0] == (char)rounds && p[size - 1] == (char)rounds && p[size] == 0);
		CHECK(madvise(p, size, MADV_DONTNEED) == 0 && p[0] == 0 && p[size / 2] == 0);
		p[2 * size - 1] = 1;
		CHECK(mprotect(p, 4096, PROT_READ) == 0 && mprotect(p, 4096, PROT_READ | PROT_WRITE) == 0);
		CHECK(munmap(p, 2 * size) == 0);
		char *top = sbrk(65536);
		CHECK(top != (char *)-1);
		memset(top, 1, 65536);
		CHECK(sbrk(-65536) != (void *)-1);
		fixed[rounds % size] = rounds;
		CHECK(mmap(fixed, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == fixed);
		CHECK(fixed[rounds % size] == 0);
	}
}

/* What a program can see of itself. */
static void self_mode(void)
{
	over();
	count_folder("/proc/self/fd");
	count_lines("/proc/self/maps");
	int fds = count_folder("/proc/self/fd"), maps = count_lines("/proc/self/maps"), tasks = count_folder("/proc/self/task");
	sigset_t mask, before;
	sigprocmask(SIG_BLOCK, NULL, &before);
	for (; !over(); rounds++) {
		CHECK(count_folder("/proc/self/fd") == fds);
		CHECK(count_lines("/proc/self/maps") == maps);
		CHECK(count_folder("/proc/self/task") == tasks);
		CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
		sigprocmask(SIG_BLOCK, NULL, &mask);
		CHECK(memcmp(&mask, &before, 8) == 0);
		sigpending(&mask);
		CHECK(*(uint64_t *)&mask == 0);
	}
}

static void seccomp_mode(void)
{
	/* poll, write, exit_group, exit, restart_syscall, rt_sigreturn and no other: everything else kills. */
	int allowed[] = { SYS_poll, SYS_write, SYS_exit_group, SYS_exit, SYS_restart_syscall, SYS_rt_sigreturn };
	int count = sizeof allowed / sizeof *allowed;
	struct sock_filter filter[32];
	int at = 0;
	filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (int i = 0; i < count; i++)
		filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], count - i, 0);
	filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { at, filter };
	static char memory[1 << 20];
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
	for (; !over(); rounds++)
		memory[rounds * 4096 % sizeof memory]++;
}

static void uffd_mode(void)
{
	long uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1);
	CHECK(uffd >= 0);
	struct uffdio_api api = { UFFD_API, 0, 0 };
	CHECK(ioctl(uffd, UFFDIO_API, &api) == 0);
	puts("ready");
	for (; !over(); rounds++) {
		char *p = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		char page[4096] = "hello";
		CHECK(p != MAP_FAILED);
		usleep(500); /* a capture may come here */
		struct uffdio_register area = { { (uintptr_t)p, 16384 }, UFFDIO_REGISTER_MODE_MISSING, 0 };
		CHECK(ioctl(uffd, UFFDIO_REGISTER, &area) == 0);
		struct uffdio_copy copy = { (uintptr_t)p, (uintptr_t)page, 4096, 0, 0 };
		CHECK(ioctl(uffd, UFFDIO_COPY, &copy) == 0);
		CHECK(strcmp(p, "hello") == 0);
		munmap(p, 16384);
	}
}

static void work_mode(void)
{
	uint64_t a = 1, b = 2;
	double x = 1;
	for (; !over(); rounds++)
		for (int i = 0; i < 100000; i++) {
			a = a * 6364136223846793005ull + 1442695040888963407ull;
			b = b * 6364136223846793005ull + 1442695040888963407ull;
			x = x * 1.0000001 + 1e-9;
			if (x > 2)
				x = 1;
			if (i % 100 == 0)
				CHECK((a ^ b) != 0 && x >= 1 && x <= 2.1);
		}
}

static const struct { const char *name; void (*run)(void); } MODES[] = {
	{ "epoll", epoll_mode }, { "poll", poll_mode }, { "nanosleep", nanosleep_mode }, { "sigtimedwait", sigtimedwait_mode },
	{ "semop", semop_mode }, { "futex", futex_mode }, { "recv", recv_mode }, { "waitpid", waitpid_mode },
	{ "sigchld", sigchld_mode }, { "timers", timers_mode }, { "vfork", vfork_mode }, { "threads", threads_mode },
	{ "memory", memory_mode }, { "self", self_mode }, { "seccomp", seccomp_mode }, { "uffd", uffd_mode }, { "work", work_mode },
};

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++)
		if (strcmp(MODES[i].name, argv[1]) == 0) {
			if (MODES[i].run != uffd_mode)
				puts("ready");
			MODES[i].run();
			char line[64];
			int length = snprintf(line, sizeof line, "ok %ld\n", rounds);
			return write(1, line, length) != length;
		}
	return 2;
}
