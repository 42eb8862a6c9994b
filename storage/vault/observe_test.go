package vault

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"gotong/grid"
	"gotong/storage"
)

func (f *fixture) segmentInfos() map[storage.SegmentID]SegmentInfo {
	f.t.Helper()
	all := map[storage.SegmentID]SegmentInfo{}
	for info, err := range f.v.Segments(context.Background()) {
		if err != nil {
			f.t.Fatal(err)
		}
		all[info.ID] = info
	}
	return all
}

func (f *fixture) observe(observations ...Observation) {
	f.t.Helper()
	if err := f.v.Observe(context.Background(), observations); err != nil {
		f.t.Fatal(err)
	}
}

// TestSegmentsAreAllThatIsNeeded: packs and parts, with what was observed of
// them, and that survives the index being brought up to date.
func TestSegmentsAreAllThatIsNeeded(t *testing.T) {
	f := newFixture(t)
	_, result := f.backup(randomBytes(1, 40<<20))
	if n := len(f.segmentInfos()); n != len(f.segments.segments) {
		t.Errorf("%d segments are needed, %d stored", n, len(f.segments.segments))
	}
	f.backup([]byte("small"))
	infos := f.segmentInfos()
	peer := grid.PeerID{77}
	for id := range infos {
		f.observe(Observation{ID: id, Committed: true, SurvivesSites: 1, Holders: []storage.Holder{{Shard: 2, Peer: peer, Epoch: 3}}})
	}
	f.observe(Observation{ID: storage.SegmentID{9}, Lost: true}) // of another vault
	f.reopen()
	for _, info := range f.segmentInfos() {
		if info.Complete || !info.Committed || info.Lost || info.SurvivesSites != 1 || len(info.Holders) != 1 || info.Holders[0].Peer != peer {
			t.Errorf("%+v", info)
		}
	}
	health, err := f.v.Health(context.Background(), result.Snapshot.ID)
	if err != nil || health.Complete || !health.Committed || health.SurvivesSites != 1 || health.Segments < 3 || health.Unknown != 0 {
		t.Errorf("%+v, %v", health, err)
	}
	f.backup([]byte("more")) // the head names holders as they are known now
	if err := os.Remove(filepath.Join(f.dir, indexName)); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	for _, info := range f.segmentInfos() {
		if info.SurvivesSites != -1 || info.Redundancy.N != 6 {
			t.Errorf("after the index was lost: %+v", info)
		}
	}
}

// TestLostSegmentsAreStoredAgain: the next backup does not count on them, and
// makes earlier snapshots whole too.
func TestLostSegmentsAreStoredAgain(t *testing.T) {
	f := newFixture(t)
	content := randomBytes(1, 20<<20)
	ref, result := f.backup(content)
	for id, info := range f.segmentInfos() {
		if info.Bytes > 8<<20 {
			f.observe(Observation{ID: id, Lost: true})
			delete(f.segments.segments, id)
		}
	}
	if health, err := f.v.Health(context.Background(), result.Snapshot.ID); err != nil || health.Lost == 0 || health.Committed {
		t.Errorf("%+v, %v", health, err)
	}
	again, result := f.backup(content)
	if again != ref || result.Stats.NewBytes < 8<<20 || result.Lost != 0 || !result.Complete {
		t.Errorf("%+v", result)
	}
	if !bytes.Equal(f.read(ref), content) {
		t.Error("content came back different")
	}
	s, err := f.v.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Abort()
	if all, err := s.Reuse([]BlobID{{1}}); all || err != nil {
		t.Error("a blob that is nowhere counts as there")
	}
}

func TestSnapshotKeepsTagsAndSet(t *testing.T) {
	want := Snapshot{Host: "h", Tags: []string{"a", "b"}, Set: "photos"}
	b, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseSnapshot(b)
	if err != nil || got.Set != want.Set || len(got.Tags) != 2 || got.Tags[1] != "b" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []Snapshot{{Set: "\xff"}, {Tags: []string{string(make([]byte, MaxTagBytes+1))}}} {
		if _, err := bad.encode(); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}
