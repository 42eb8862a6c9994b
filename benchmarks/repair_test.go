package benchmarks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotong/grid/localgrid"
)

const (
	// repairInterval is short, for what is measured is the work and not how
	// seldom peers look. Who lost shards says so itself: no grace has to pass.
	repairInterval = "1s"
	repairLimit    = 10 * time.Minute
	repairPoll     = 20 * time.Millisecond
)

// BenchmarkRepair wipes one and two of the holders while one's own peer is
// stopped, and waits until they have everything back.
func BenchmarkRepair(b *testing.B) {
	t := run.results.newTable(fmt.Sprintf("Repair of %d MiB of random data, %s on %d holders, the owner away", run.settings.MiB, redundancy, holders), nil)
	t.note("From the start of the wiped holders to the last shard back, looking every %s; then the owner comes back and its check finds all healthy. Bytes are those of the shards that were rebuilt; for each one, 4 had to be read.", repairInterval)
	us := &ourselves{cluster: newCluster(b, quickGossip, holders, 0, "GOTONG_REPAIR_INTERVAL="+repairInterval)}
	source := filepath.Join(tempDir(b), "source")
	if err := errors.Join(writeRandom(source, 1, run.settings.MiB), us.backup(b.Context(), source)); err != nil {
		b.Fatal(err)
	}
	repetition := 0
	for b.Loop() {
		for wiped := 1; wiped <= killed; wiped++ {
			repetition++
			if err := t.repair(b.Context(), us, repetition, wiped); err != nil {
				b.Fatal(err)
			}
		}
	}
	t.report(b)
}

// repair wipes holders, others in each repetition, and measures their repair.
func (t *table) repair(ctx context.Context, us *ourselves, repetition, wiped int) error {
	before, err := shardsBelow(us.friends)
	if err != nil {
		return err
	}
	if err := errors.Join(us.you.Stop(), settle()); err != nil {
		return err
	}
	var gone []*localgrid.Peer
	for i := range wiped {
		friend := us.friends[(repetition+i*len(us.friends)/killed)%len(us.friends)]
		if err := errors.Join(friend.Kill(), os.RemoveAll(shardDir(friend))); err != nil {
			return err
		}
		gone = append(gone, friend)
	}
	left, err := shardsBelow(us.friends)
	if err != nil {
		return err
	}
	cpuBefore, errCPU := cpuTimes(us.friendPIDs()...)
	begin := time.Now()
	for _, friend := range gone {
		if err := friend.Start(ctx); err != nil {
			return err
		}
	}
	if err := shardsBack(ctx, us.friends, before); err != nil {
		return err
	}
	took := time.Since(begin).Seconds()
	mib := float64(before.bytes-left.bytes) / (1 << 20)
	row := func(what string) string { return fmt.Sprintf("%d of %d wiped: %s", wiped, holders, what) }
	t.add(row("time"), seconds, product, took)
	t.add(row("rebuilt"), mebibytes, product, mib)
	t.add(row("rate"), rate, product, mib/took)
	if cpu, err := cpuTimes(us.friendPIDs()...); err == nil && errCPU == nil {
		t.add(row("CPU of all holders"), cpuSeconds, product, cpu-cpuBefore)
	}
	if err := us.you.Start(ctx); err != nil {
		return err
	}
	if err := us.WaitAlive(ctx, us.you, len(us.friends)+1); err != nil {
		return err
	}
	begin = time.Now()
	var checked struct{ Segments, Healthy int }
	if err := us.you.JSON(ctx, &checked, "check"); err != nil {
		return err
	}
	t.add(row("check by the owner after it"), seconds, product, time.Since(begin).Seconds())
	if checked.Healthy != checked.Segments || checked.Segments == 0 {
		return fmt.Errorf("after the repair %d of %d segments are healthy", checked.Healthy, checked.Segments)
	}
	return nil
}

// shardDir is where a peer keeps shards for others.
func shardDir(p *localgrid.Peer) string { return filepath.Join(p.Home, "peer", "shards") }

// shards counts the files of shards.
type shards struct {
	files int
	bytes int64
}

// shardsBelow counts what peers keep.
func shardsBelow(peers []*localgrid.Peer) (sum shards, err error) {
	for _, p := range peers {
		err := filepath.WalkDir(filepath.Join(shardDir(p), "shards"), func(_ string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			info, err := entry.Info()
			if err == nil {
				sum.files++
				sum.bytes += info.Size()
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // wiped, or a file went meanwhile
			return sum, err
		}
	}
	return sum, nil
}

// shardsBack returns when peers keep as much as they did.
func shardsBack(ctx context.Context, peers []*localgrid.Peer, before shards) error {
	for begin := time.Now(); ; {
		now, err := shardsBelow(peers)
		if err != nil || now.files >= before.files {
			return err
		}
		if time.Since(begin) > repairLimit {
			return fmt.Errorf("%d of %d shards are there after %s", now.files, before.files, repairLimit)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(repairPoll):
		}
	}
}
