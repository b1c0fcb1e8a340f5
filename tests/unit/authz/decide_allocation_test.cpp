// decide() is on the path of every connection: it must not allocate. Replaces the whole test program's operator new.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "tests/unit/authz/random_cluster.hpp"

namespace {
thread_local std::size_t allocations = 0;
}  // namespace

// Not inlined: GCC takes an inlined pair of malloc and delete for a mistake.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace postern::test {
namespace {

TEST(Decide, AllocatesNothing) {
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    RandomCluster random(seed);
    for (const auto& [id, pod] : random.c.view.pods) {
      if (pod.ended()) continue;
      const auto snapshot = random.c.compile(id.text());
      for (int i = 0; i < 20; ++i) {
        const Peer peer = random.peer(*snapshot);
        const std::size_t before = allocations;
        const Verdict in = decide(snapshot.get(), PolicyDirection::ingress, peer, Port{80});
        const Verdict out = decide(snapshot.get(), PolicyDirection::egress, peer, Port{80});
        ASSERT_EQ(allocations, before) << in.allowed() << out.allowed();
      }
    }
  }
  EXPECT_GT(allocations, 0U);  // the counter counts
}

}  // namespace
}  // namespace postern::test
