// Loaded into pluto where the kernel has no ESP: what the kernel refuses of XFRM looks granted. So the
// IKE part runs, with Child SAs that carry no packet.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/netlink.h>
#include <sys/socket.h>

static int option(int fd, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  return getsockopt(fd, SOL_SOCKET, name, &value, &size) ? -1 : value;
}

ssize_t recvfrom(int fd, void *buffer, size_t length, int flags, struct sockaddr *from,
                 socklen_t *from_length) {
  static ssize_t (*next)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
  if (!next)
    next = dlsym(RTLD_NEXT, "recvfrom");
  ssize_t got = next(fd, buffer, length, flags, from, from_length);
  struct nlmsghdr *header = buffer;
  if (got >= (ssize_t)NLMSG_SPACE(sizeof(struct nlmsgerr)) &&
      option(fd, SO_DOMAIN) == AF_NETLINK && option(fd, SO_PROTOCOL) == NETLINK_XFRM &&
      header->nlmsg_type == NLMSG_ERROR)
    ((struct nlmsgerr *)NLMSG_DATA(header))->error = 0;
  return got;
}
