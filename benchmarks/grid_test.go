package benchmarks

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"gotong/grid/localgrid"
	"gotong/tasks/guests"
)

// Presets of gossip's timers: quick ones where they are not what is measured, as
// in the demonstration, and those that a peer has by default.
const (
	quickGossip   = "local"
	defaultGossip = "lan"
)

// product is the name of the column that the others are compared with.
const product = "gotong"

const (
	holders    = 6
	redundancy = "4+2"
	killed     = 2 // holders that a restore must do without
)

// cluster is a grid of processes: one's own peer and its friends.
type cluster struct {
	*localgrid.Grid
	you     *localgrid.Peer
	friends []*localgrid.Peer
}

// newCluster starts one's own peer and friends, each with its own owner; the
// grid ends with the benchmark. The slots are those of each friend; one's own
// peer has none, so that every task goes over the network. The preset is that of
// gossip's timers; env are further settings of all peers.
func newCluster(b *testing.B, preset string, friends, slots int, env ...string) *cluster {
	b.Helper()
	executable, err := program()
	if err != nil {
		b.Fatal(err)
	}
	dir := tempDir(b)
	g := localgrid.New(localgrid.Config{
		Executable: executable,
		Dir:        dir,
		Env:        append(env, "GOTONG_GOSSIP_PRESET="+preset, "GOTONG_DISCOVERY_MDNS=false", "GOTONG_LOG_LEVEL=warn"),
		Args:       []string{"--give", "100GB"},
	})
	b.Cleanup(func() {
		if err := g.Close(); err != nil {
			b.Error(err)
		}
	})
	ctx := b.Context()
	c := &cluster{Grid: g}
	if c.you, err = g.Found(ctx, "you", "--slots", "0"); err != nil {
		b.Fatal(err)
	}
	for i := range friends {
		friend, err := g.Join(ctx, c.you, fmt.Sprintf("f%d", i+1), "--slots", strconv.Itoa(slots))
		if err != nil {
			b.Fatal(err)
		}
		c.friends = append(c.friends, friend)
	}
	if err := g.WaitAlive(ctx, c.you, friends+1); err != nil {
		b.Fatal(err)
	}
	return c
}

// tempDir is b.TempDir with a path that leaves room for a socket's name, below
// the place of the run.
func tempDir(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp(run.place, "")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := removeTree(dir); err != nil {
			b.Error(err)
		}
	})
	return dir
}

// friendPIDs returns the process ids of the friends that run.
func (c *cluster) friendPIDs() (out []int) {
	for _, friend := range c.friends {
		if pid := friend.PID(); pid != 0 {
			out = append(out, pid)
		}
	}
	return out
}

// killTwo kills two friends, others in each repetition, and returns what starts
// them again and waits until they are seen.
func (c *cluster) killTwo(repetition int) (again func(context.Context) error, err error) {
	var gone []*localgrid.Peer
	for i := range killed {
		friend := c.friends[(repetition+i*len(c.friends)/killed)%len(c.friends)]
		if err := friend.Kill(); err != nil {
			return nil, err
		}
		gone = append(gone, friend)
	}
	return func(ctx context.Context) error {
		for _, friend := range gone {
			if err := friend.Start(ctx); err != nil {
				return err
			}
		}
		return c.WaitAlive(ctx, c.you, len(c.friends)+1)
	}, nil
}

// guest writes one of the embedded modules to a file.
func guest(b *testing.B, name string) string {
	b.Helper()
	path := filepath.Join(tempDir(b), name+".wasm")
	if err := os.WriteFile(path, guests.Module(name), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}
