package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gotong/grid/localgrid"
)

// nights is a source tree that changes, and what is known of its backups.
type nights struct {
	t      *testing.T
	you    *localgrid.Peer
	source string
	random *rand.Rand
	next   int // number of the next new file

	kept      map[string]map[string][32]byte // by snapshot: the files of the source
	forgotten map[string]bool
}

// write makes or replaces a file like one of a source tree: small, mostly.
func (n *nights) write(name string) {
	n.t.Helper()
	data := make([]byte, 200+n.random.IntN(6000))
	if n.random.IntN(50) == 0 {
		data = make([]byte, 300_000)
	}
	for i := range data {
		data[i] = byte(n.random.Uint32())
	}
	path := filepath.Join(n.source, name)
	must(n.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(n.t, os.WriteFile(path, data, 0o644))
}

func (n *nights) add(files int) {
	for range files {
		n.write(fmt.Sprintf("d%d/e%d/f%d", n.next%23, n.next%7, n.next))
		n.next++
	}
}

// day changes some of the files, adds some, removes some and moves some.
func (n *nights) day() {
	names := slices.Sorted(maps.Keys(tree(n.t, n.source)))
	some := len(names)/50 + 1
	for range some {
		n.write(names[n.random.IntN(len(names))])
	}
	for _, i := range n.random.Perm(len(names))[:some] {
		path := filepath.Join(n.source, names[i])
		if n.random.IntN(2) == 0 {
			must(n.t, os.Remove(path))
		} else {
			must(n.t, os.Rename(path, path+"-moved"))
		}
	}
	n.add(some)
}

// night backs up and remembers what the snapshot must have.
func (n *nights) night(ctx context.Context, args ...string) backupSummary {
	s := backup(ctx, n.t, n.you, append(args, n.source)...)
	n.kept[s.Snapshot] = tree(n.t, n.source)
	return s
}

// forget takes snapshots away by rules; what is gone may still be seen.
func (n *nights) forget(ctx context.Context, args ...string) {
	t := n.t
	t.Helper()
	must(t, n.you.JSON(ctx, nil, append([]string{"forget", "--keep-tag", "weekly"}, args...)...))
	listed, all := snapshotIDs(ctx, t, n.you), snapshotIDs(ctx, t, n.you, "--all")
	for id := range n.kept {
		if !listed[id] {
			delete(n.kept, id)
			n.forgotten[id] = true
			if !all[id] {
				t.Errorf("forgotten snapshot %s is not in snapshots --all", id)
			}
		}
	}
	if len(listed) != len(n.kept) {
		t.Errorf("%d snapshots are listed, %d were kept", len(listed), len(n.kept))
	}
}

// restores compares what comes back of a snapshot with the record.
func (n *nights) restores(ctx context.Context, id string) {
	n.t.Helper()
	target := filepath.Join(shortTempDir(n.t), "back")
	must(n.t, n.you.JSON(ctx, nil, "restore", id, "--target", target))
	wantTree(n.t, "snapshot "+id, n.kept[id], filepath.Join(target, n.source))
	must(n.t, os.RemoveAll(target))
}

// TestNightly: backups of a tree that changes, forgetting and pruning between,
// while friends are killed and come back and disks are replaced. Every kept
// snapshot restores bit for bit, a check that reads everything finds nothing,
// and what is stored follows the data.
func TestNightly(t *testing.T) {
	rounds, files := sizeFrom(t, "NIGHTLY_ROUNDS", 4), sizeFrom(t, "NIGHTLY_FILES", 300)
	ctx := t.Context() // many rounds take as long as -timeout lets them
	const floor = 6 * time.Second
	g := newGridWith(t, healing(10*time.Minute, "GOTONG_RETENTION_FLOOR="+floor.String()), "--redundancy", "2+3")
	you, friends := grow(ctx, t, g, 6)
	n := &nights{t: t, you: you, source: shortTempDir(t), random: rand.New(rand.NewPCG(41, 0)),
		kept: map[string]map[string][32]byte{}, forgotten: map[string]bool{}}
	n.add(files)
	var down *localgrid.Peer
	for round := range rounds {
		if round > 0 {
			n.day()
		}
		if down != nil {
			must(t, down.Start(ctx))
			must(t, g.WaitAlive(ctx, you, 7))
			down = nil
		}
		victim := friends[n.random.IntN(len(friends))]
		killed := make(chan error, 1)
		switch round % 3 {
		case 1: // in the middle of it
			down = victim
			after := time.Duration(n.random.IntN(300)) * time.Millisecond
			go func() {
				<-time.After(after)
				killed <- victim.Kill()
			}()
		case 2:
			newDisk(ctx, t, victim)
			must(t, g.WaitAlive(ctx, you, 7))
			killed <- nil
		default:
			killed <- nil
		}
		var args []string
		if round%7 == 0 {
			args = []string{"--tag", "weekly"}
		}
		s := n.night(ctx, args...)
		must(t, <-killed)
		t.Logf("night %d: %d files, %d new bytes, %d stored, %d segments, survives %d", round, s.Files, s.NewBytes, s.StoredBytes, s.Segments, s.SurvivesSites)
		if round%2 == 1 {
			n.forget(ctx, "--keep-last", "3")
			var p struct {
				Segments, Dropped, Repacked uint64
				Waiting                     uint64
			}
			must(t, you.JSON(ctx, &p, "prune"))
			t.Logf("prune: %+v", p)
		}
		ids := slices.Sorted(maps.Keys(n.kept))
		n.restores(ctx, ids[n.random.IntN(len(ids))])
	}
	if down != nil {
		must(t, down.Start(ctx))
		must(t, g.WaitAlive(ctx, you, 7))
	}
	for id := range n.kept {
		n.restores(ctx, id)
	}
	waitHealed(ctx, t, time.Minute, 5, 1, friends...)
	if s := check(ctx, t, you); s.Degraded != 0 {
		t.Errorf("check: %+v", s)
	}
	n.follows(ctx, friends)
}

// follows forgets all but the newest snapshot and waits for the floor: then not
// much more is stored than a new vault would have.
func (n *nights) follows(ctx context.Context, friends []*localgrid.Peer) {
	t := n.t
	t.Helper()
	before := keptIn(t, "shards", friends...)
	var list struct{ Snapshots []struct{ ID string } }
	must(t, n.you.JSON(ctx, &list, "snapshots"))
	args := []string{"forget"}
	for _, s := range list.Snapshots[:len(list.Snapshots)-1] {
		args = append(args, s.ID)
	}
	must(t, n.you.JSON(ctx, nil, args...))
	last := list.Snapshots[len(list.Snapshots)-1].ID
	must(t, n.you.JSON(ctx, nil, "prune"))
	var size int64
	must(t, filepath.Walk(n.source, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return err
	}))
	trash := keptIn(t, "trash", friends...)
	waitFor(ctx, t, "the trash to be empty", func() bool { return keptIn(t, "trash", friends...).files == 0 })
	after := keptIn(t, "shards", friends...)
	most := size*5/2*13/10 + 500_000
	t.Logf("data of the newest snapshot %d bytes; stored before %d in %d shards, in trash %d, now %d in %d shards, at most %d",
		size, before.bytes, before.files, trash.bytes, after.bytes, after.files, most)
	if after.bytes > most || after.bytes < size*5/2 {
		t.Errorf("%d bytes are stored for %d", after.bytes, size)
	}
	n.restores(ctx, last)
	check(ctx, t, n.you)
}
