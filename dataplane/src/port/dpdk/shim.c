/* DPDK's inline functions as symbols, for ffi.rs, and the proof that its view of an mbuf is right. */
#include <stddef.h>
#include <string.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>

#define FIELD(name, at, octets) \
	_Static_assert(offsetof(struct rte_mbuf, name) == (at), "rte_mbuf." #name " has moved"); \
	_Static_assert(sizeof(((struct rte_mbuf *)0)->name) == (octets), "rte_mbuf." #name " has changed")
FIELD(buf_addr, 0, 8);
FIELD(data_off, 16, 2);
FIELD(nb_segs, 20, 2);
FIELD(pkt_len, 36, 4);
FIELD(data_len, 40, 2);
FIELD(buf_len, 54, 2);
FIELD(next, 64, 8);

int hitless_dpdk_errno(void) { return rte_errno; }

void hitless_dpdk_register_thread(void)
{
	if (rte_lcore_id() == LCORE_ID_ANY)
		(void)rte_thread_register();
}

/* One receive and one transmit queue for each worker; a negative errno, or 0. */
int hitless_dpdk_start(uint16_t port, uint16_t queues, uint16_t size, struct rte_mempool *pool)
{
	struct rte_eth_conf conf;
	int failed, node = rte_eth_dev_socket_id(port);

	memset(&conf, 0, sizeof(conf));
	if (queues > 1) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = RTE_ETH_RSS_IP;
	}
	failed = rte_eth_dev_configure(port, queues, queues, &conf);
	for (uint16_t queue = 0; !failed && queue < queues; queue++) {
		failed = rte_eth_rx_queue_setup(port, queue, size, node, NULL, pool);
		if (!failed)
			failed = rte_eth_tx_queue_setup(port, queue, size, node, NULL);
	}
	return failed ? failed : rte_eth_dev_start(port);
}

uint16_t hitless_dpdk_receive(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t most)
{
	return rte_eth_rx_burst(port, queue, mbufs, most);
}

uint16_t hitless_dpdk_transmit(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

struct rte_mbuf *hitless_dpdk_allocate(struct rte_mempool *pool) { return rte_pktmbuf_alloc(pool); }
void hitless_dpdk_free(struct rte_mbuf *mbuf) { rte_pktmbuf_free(mbuf); }
