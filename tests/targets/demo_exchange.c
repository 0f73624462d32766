// A small stock exchange: three traders and a matcher share an order book until the given number of seconds has passed.
// Everything that changes is in named globals, so that a debugger can say what it was at any moment.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define DEPTH 64
#define TRADERS 3
#define LEDGER 65536

struct order {
    int price;  // in cents
    int amount;
    int trader;
};

struct side {
    int count;
    struct order orders[DEPTH];
};

struct market {
    char name[16];
    long trades;
    long volume;
    int last_price;  // in cents
    struct side bids;
    struct side asks;
};

struct market market = {.name = "demo", .last_price = 10000};
long balance[TRADERS];  // in cents
struct order *ledger;   // the last trades, on the heap
_Atomic int finished;

static pthread_mutex_t book = PTHREAD_MUTEX_INITIALIZER;

static void pause_ms(long ms) {
    struct timespec time = {.tv_nsec = ms * 1000000};
    nanosleep(&time, NULL);
}

static int best(const struct side *side, int sign) {
    int found = -1;
    for (int i = 0; i < side->count; i++)
        if (found < 0 || sign * side->orders[i].price > sign * side->orders[found].price)
            found = i;
    return found;
}

static void drop(struct side *side, int index) {
    side->orders[index] = side->orders[--side->count];
}

static void *trade(void *number) {
    int trader = (int)(long)number;
    unsigned seed = 42 + trader;
    while (!finished) {
        pthread_mutex_lock(&book);
        struct side *side = rand_r(&seed) % 2 ? &market.bids : &market.asks;
        if (side->count < DEPTH)
            side->orders[side->count++] = (struct order){
                .price = market.last_price + rand_r(&seed) % 201 - 100, .amount = 1 + rand_r(&seed) % 9, .trader = trader};
        pthread_mutex_unlock(&book);
        pause_ms(2);
    }
    return NULL;
}

static void settle(struct order bid, struct order ask, int amount) {
    market.last_price = (bid.price + ask.price) / 2;
    market.volume += amount;
    balance[bid.trader] -= (long)amount * market.last_price;
    balance[ask.trader] += (long)amount * market.last_price;
    ledger[market.trades++ % LEDGER] = (struct order){market.last_price, amount, bid.trader};
}

static void *match(void *unused) {
    while (!finished) {
        pthread_mutex_lock(&book);
        int bid = best(&market.bids, 1), ask = best(&market.asks, -1);
        while (bid >= 0 && ask >= 0 && market.bids.orders[bid].price >= market.asks.orders[ask].price) {
            struct order *buy = &market.bids.orders[bid], *sell = &market.asks.orders[ask];
            int amount = buy->amount < sell->amount ? buy->amount : sell->amount;
            settle(*buy, *sell, amount);
            buy->amount -= amount;
            sell->amount -= amount;
            if (!buy->amount)
                drop(&market.bids, bid);
            if (!sell->amount)
                drop(&market.asks, ask);
            bid = best(&market.bids, 1);
            ask = best(&market.asks, -1);
        }
        if (market.bids.count == DEPTH)
            market.bids.count = 0;
        if (market.asks.count == DEPTH)
            market.asks.count = 0;
        pthread_mutex_unlock(&book);
        pause_ms(1);
    }
    return unused;
}

int main(int count, char **words) {
    double seconds = count > 1 ? atof(words[1]) : 60;
    ledger = calloc(LEDGER, sizeof *ledger);
    pthread_t threads[TRADERS + 1];
    for (long i = 0; i < TRADERS; i++) {
        pthread_create(&threads[i], NULL, trade, (void *)i);
        pthread_setname_np(threads[i], (char[]){'t', 'r', 'a', 'd', 'e', 'r', '-', '1' + i, 0});
    }
    pthread_create(&threads[TRADERS], NULL, match, NULL);
    pthread_setname_np(threads[TRADERS], "matcher");
    printf("the exchange is open\n");
    fflush(stdout);
    usleep((useconds_t)(seconds * 1e6));
    finished = 1;
    for (int i = 0; i <= TRADERS; i++)
        pthread_join(threads[i], NULL);
    printf("%ld trades, last price %d.%02d\n", market.trades, market.last_price / 100, market.last_price % 100);
    return 0;
}
