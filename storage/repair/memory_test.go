package repair

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"gotong/grid"
	"gotong/storage"
)

func peerN(n byte) (id grid.PeerID) {
	id[0], id[31] = n, 1
	return id
}

func shardN(n byte) storage.ShardID {
	return storage.ShardID{Segment: storage.SegmentID{n, 7}, Index: int(n) % storage.MaxShards}
}

func filledMemory(path string) *memory {
	m := newMemory(path)
	now := time.Unix(1_800_000_000, 0)
	for i := range byte(40) {
		m.note(peerN(1), shardN(i), Event{At: now.Add(time.Duration(i) * time.Minute), Outcome: outcomes[int(i)%len(outcomes)], Read: i%2 == 0})
	}
	m.heard(nil, map[grid.PeerID]bool{peerN(2): true}, now)
	m.setTrial(shardN(3), trial{peerN(2), now, now.Add(time.Hour), 2})
	m.scrub = scrubState{next: shardN(9), began: now, last: now.Add(-time.Hour), bad: 4}
	return m
}

func TestMemorySurvivesRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "repair")
	m := filledMemory(path)
	if err := m.save(); err != nil {
		t.Fatal(err)
	}
	back, err := openMemory(path)
	if err != nil {
		t.Fatal(err)
	}
	m.dirty = false
	if !reflect.DeepEqual(m, back) {
		t.Errorf("got %+v\nwant %+v", back, m)
	}
	if n := len(back.standings[peerN(1)].Events); n != maxEvents {
		t.Errorf("%d events kept, want %d", n, maxEvents)
	}
}

func TestSilenceBeginsOnce(t *testing.T) {
	m := newMemory("")
	first := time.Unix(1000, 0)
	silent := map[grid.PeerID]bool{peerN(1): true}
	m.heard(nil, silent, first)
	m.heard(nil, silent, first.Add(time.Hour))
	if at := m.silentSince()[peerN(1)]; !at.Equal(first) {
		t.Errorf("silent since %s, want %s", at, first)
	}
	m.heard(silent, nil, first.Add(2*time.Hour))
	if len(m.silentSince()) != 0 {
		t.Error("a peer that answered is still silent")
	}
}

func FuzzParseMemory(f *testing.F) {
	data, err := filledMemory("").encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":1,"peers":{"x":{}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newMemory("")
		if m.parse(data) != nil {
			return
		}
		now := time.Unix(1_800_000_000, 0)
		m.distrust(now)
		for peer := range m.standings {
			m.report(peer, now)
		}
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := newMemory("").parse(again); err != nil {
			t.Fatalf("what was written is not read: %v", err)
		}
	})
}
