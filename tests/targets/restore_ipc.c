/* System V IPC: shared memory attached in several ways, semaphores, message queues; with their ids and keys. */
#define _GNU_SOURCE
#include "restore_check.h"
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>

struct message { long type; char text[64]; };

int main(int count, char **words) {
    int key = 0x5643 << 16 | (getpid() & 0xffff), other = 0x5644 << 16 | (getpid() & 0xffff);
    int plain = shmget(key, 5 * 4096, IPC_CREAT | IPC_EXCL | 0640), removed = shmget(IPC_PRIVATE, 10000, IPC_CREAT | 0600);
    CHECK(plain >= 0 && removed >= 0);
    char *one = shmat(plain, NULL, 0), *two = shmat(plain, NULL, SHM_RDONLY), *gone = shmat(removed, NULL, 0);
    CHECK(one != (void *)-1 && two != (void *)-1 && gone != (void *)-1);
    int locked = shmctl(removed, SHM_LOCK, NULL) == 0; /* the privileged, or within a limit */
    char *read_only = shmat(removed, NULL, SHM_RDONLY); /* never touched */
    CHECK(read_only != (void *)-1 && shmctl(removed, IPC_RMID, NULL) == 0);
    strcpy(one + 4096, "first"), strcpy(one + 4 * 4096, "last"), strcpy(gone + 9000, "removed");
    CHECK(mprotect(one + 2 * 4096, 4096, PROT_READ) == 0 && munmap(two, 4096) == 0);

    int detached = shmget(other, 9000, IPC_CREAT | IPC_EXCL | 0600);
    char *later = shmat(detached, NULL, 0);
    CHECK(later != (void *)-1 && strcpy(later + 8000, "detached") && shmdt(later) == 0);
    int semaphores = semget(other, 3, IPC_CREAT | IPC_EXCL | 0600), queue = msgget(other, IPC_CREAT | IPC_EXCL | 0600);
    unsigned short values[3] = {7, 0, 300}, found[3];
    CHECK(semaphores >= 0 && queue >= 0 && semctl(semaphores, 0, SETALL, values) == 0);
    struct message a = {5, "five"}, b = {2, "two"}, c = {5, "five again"}, got;
    CHECK(msgsnd(queue, &a, 5, 0) == 0 && msgsnd(queue, &b, 4, 0) == 0 && msgsnd(queue, &c, 11, 0) == 0);

    int orders[2];
    CHECK(pipe(orders) == 0);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        CHECK(read(orders[0], &byte, 1) == 1 && strcmp(one, "from the parent") == 0);
        strcpy(one, "from the child");
        struct sembuf up = {1, 1, 0};
        _exit(semop(semaphores, &up, 1) == 0 ? 7 : 8);
    }
    if (count > 1) {
        struct sembuf undone = {0, -1, SEM_UNDO};
        CHECK(*words && semop(semaphores, &undone, 1) == 0);
    }
    wait_to_be_restored();

    CHECK(shmget(key, 0, 0) == plain && semget(other, 0, 0) == semaphores && msgget(other, 0) == queue);
    CHECK(strcmp(one + 4096, "first") == 0 && strcmp(two + 4 * 4096, "last") == 0 && strcmp(gone + 9000, "removed") == 0);
    strcpy(one, "from the parent");
    struct sembuf down = {1, -1, 0};
    int status;
    CHECK(write(orders[1], "x", 1) == 1 && semop(semaphores, &down, 1) == 0 && strcmp(one, "from the child") == 0);
    CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7);
    struct shmid_ds facts;
    CHECK(shmctl(removed, IPC_STAT, &facts) == 0 && !(facts.shm_perm.mode & SHM_LOCKED) == !locked);
    CHECK(strcmp(read_only + 9000, "removed") == 0 && mprotect(read_only, 4096, PROT_READ | PROT_WRITE) == -1 && shmdt(read_only) == 0);
    CHECK(shmctl(plain, IPC_STAT, &facts) == 0 && facts.shm_segsz == 5 * 4096 && (facts.shm_perm.mode & 0777) == 0640);
    CHECK(shmdt(one) == 0 && shmdt(gone) == 0 && shmctl(removed, IPC_STAT, &facts) < 0);
    CHECK(semctl(semaphores, 0, GETALL, found) == 0 && found[0] == 7 && found[1] == 0 && found[2] == 300);
    CHECK(msgrcv(queue, &got, 64, 0, IPC_NOWAIT) == 5 && got.type == 5 && strcmp(got.text, "five") == 0);
    CHECK(msgrcv(queue, &got, 64, 5, IPC_NOWAIT) == 11 && strcmp(got.text, "five again") == 0);
    CHECK(msgrcv(queue, &got, 64, 0, IPC_NOWAIT) == 4 && got.type == 2);
    later = shmat(detached, NULL, 0);
    CHECK(later != (void *)-1 && *later == 0 && strcmp(later + 8000, "detached") == 0 && shmctl(detached, IPC_RMID, NULL) == 0);
    CHECK(shmctl(plain, IPC_RMID, NULL) == 0 && semctl(semaphores, 0, IPC_RMID) == 0 && msgctl(queue, IPC_RMID, NULL) == 0);
    return verified();
}
