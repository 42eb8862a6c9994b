package sandbox

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/sys"
)

// clockStart is the time at which every guest starts: 2020-01-01 UTC.
const clockStart = int64(1_577_836_800) * int64(time.Second)

// clockStep is by how much each reading moves the clock. A constant clock hangs
// guests that wait for it to move.
const clockStep = int64(time.Millisecond)

// clock is the only time that a guest sees. Wall and monotonic readings share
// it, so that they agree.
type clock struct{ elapsed int64 } // ns since the guest's start

func (c *clock) advance(ns int64) {
	if ns > 0 {
		c.elapsed += min(ns, math.MaxInt64-clockStart-c.elapsed)
	}
}

func (c *clock) nanotime() int64 {
	c.advance(clockStep)
	return c.elapsed
}

func (c *clock) walltime() (sec int64, nsec int32) {
	now := clockStart + c.nanotime()
	return now / int64(time.Second), int32(now % int64(time.Second))
}

// now is the time without moving it.
func (c *clock) now() int64 { return clockStart + c.elapsed }

// configure makes c the clock of the guests that cfg starts.
func (c *clock) configure(cfg wazero.ModuleConfig) wazero.ModuleConfig {
	return cfg.
		WithWalltime(c.walltime, sys.ClockResolution(clockStep)).
		WithNanotime(c.nanotime, sys.ClockResolution(clockStep)).
		WithNanosleep(c.advance)
}

// random is the guest's source of randomness: ChaCha8 from the request's seed.
// The generator is made when it is first read, for most guests never read it.
type random struct {
	seed   [32]byte
	source *rand.ChaCha8
}

func (r *random) reset(seed [32]byte) { r.seed, r.source = seed, nil }

// Read never fails.
func (r *random) Read(p []byte) (int, error) {
	if r.source == nil {
		r.source = rand.NewChaCha8(r.seed)
	}
	return r.source.Read(p)
}
