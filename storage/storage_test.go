package storage_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/storagetest"
)

var (
	device = storagetest.NewDevice("vocabulary")
	vault  = storagetest.Vault("vocabulary")
)

func header(t testing.TB) storage.SignedHeader {
	return device.Segment(t, vault, storage.Redundancy{K: 2, N: 3}, 64, "a").Header
}

func TestIDs(t *testing.T) {
	h := header(t)
	if id, err := storage.ParseSegmentID(h.ID.String()); err != nil || id != h.ID {
		t.Error(id, err)
	}
	if id, err := storage.ParseVaultID(vault.String()); err != nil || id != vault {
		t.Error(id, err)
	}
	shard := storage.ShardID{Segment: h.ID, Index: 29}
	if id, err := storage.ParseShardID(shard.String()); err != nil || id != shard {
		t.Error(id, err)
	}
	name := h.ID.String()
	for _, s := range []string{"", name, name + ".", name + ".30", name + ".-1", name + ".01", name + ".1.tmp", name[1:] + ".1",
		strings.ToUpper(name) + ".1", name + ".1/../2", "../" + name[3:] + ".1"} {
		if id, err := storage.ParseShardID(s); err == nil {
			t.Errorf("%q read as %s", s, id)
		}
	}
	if !strings.HasPrefix(name, h.ID.Short()) || !strings.HasPrefix(vault.String(), vault.Short()) || h.ID.IsZero() || !(storage.VaultID{}).IsZero() {
		t.Error("short forms or zero values")
	}
}

func TestRedundancy(t *testing.T) {
	for text, want := range map[string]storage.Redundancy{"auto": {}, "4+2": {K: 4, N: 6}, "1+0": {K: 1, N: 1}, "10+20": {K: 10, N: 30}} {
		r, err := storage.ParseRedundancy(text)
		if err != nil || r != want || (text != "auto" && r.String() != text) || r.IsZero() != (text == "auto") {
			t.Errorf("%s: %v, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "4", "0+2", "4+-1", "20+11", "a+b", "4+2+1", "99999999999999999999+1", "30+2147483647"} {
		if r, err := storage.ParseRedundancy(text); err == nil {
			t.Errorf("%q read as %v", text, r)
		}
	}
	for r, want := range map[storage.Redundancy][2]int{
		{K: 4, N: 6}: {5, 1}, {K: 1, N: 1}: {1, 1}, {K: 2, N: 5}: {4, 1}, {K: 4, N: 10}: {7, 3}, {K: 10, N: 30}: {20, 10},
	} {
		if r.CommitAt() != want[0] || r.PerSite() != want[1] {
			t.Errorf("%s: committed at %d, %d to a site", r, r.CommitAt(), r.PerSite())
		}
	}
}

func TestErrorNamesItsPlace(t *testing.T) {
	err := error(&storage.Error{Op: "get", Shard: storage.ShardID{Index: 3}, Peer: device.Peer, Err: storage.ErrCorrupt})
	if !errors.Is(err, storage.ErrCorrupt) || !strings.Contains(err.Error(), device.Peer.Short()) || !strings.HasPrefix(err.Error(), "get 0000") {
		t.Error(err)
	}
}

// TestHeaderIsFixed pins the bytes of version 1: another id here means that
// stored segments are lost.
func TestHeaderIsFixed(t *testing.T) {
	const stored = "72e47afc2cec4208"
	id := header(t).ID
	if got := hex.EncodeToString(id[:8]); got != stored {
		t.Errorf("id of the same header was %s…, is %s…", stored, got)
	}
	const storedHead = "c4c795aaf00088ad"
	head := device.Head(t, vault, storage.SignedHead{}, "state")
	if got := hex.EncodeToString(head.ID[:8]); got != storedHead {
		t.Errorf("id of the same head was %s…, is %s…", storedHead, got)
	}
}

// TestHeaderRoundTrip: what was signed comes back, whatever it was.
func TestHeaderRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, storage.MaxShards).Draw(rt, "n")
		k := rapid.IntRange(1, n).Draw(rt, "k")
		want := storage.Header{
			Vault: vault, Owner: device.Owner, Grant: device.Grant, Redundancy: storage.Redundancy{K: k, N: n},
			ShardBytes: rapid.IntRange(1, storage.MaxSegmentBytes/k).Draw(rt, "shard bytes"),
			Created:    drawTime(rt), Expires: drawTime(rt),
			Floor: time.Duration(rapid.IntRange(0, 1_000_000).Draw(rt, "floor")) * time.Second,
			Roots: make([][32]byte, n),
		}
		want.Bytes = rapid.IntRange(1, k*want.ShardBytes).Draw(rt, "bytes")
		for i := range want.Roots {
			want.Roots[i] = storagetest.Vault(rapid.String().Draw(rt, "root"))
		}
		s, err := storage.SignHeader(device.Key, want)
		if err != nil {
			rt.Fatal(err)
		}
		if !reflect.DeepEqual(s.Header, want) || s.Signer != device.Peer || s.Delegation.Epoch != 1 || len(s.Raw) > storage.MaxHeaderBytes {
			rt.Fatalf("signed %+v, read %+v", want, s.Header)
		}
		known, err := storage.ParseKnownHeader(s.Raw, s.ID)
		if err != nil || !reflect.DeepEqual(known.Header, want) {
			rt.Fatal(err)
		}
	})
}

func drawTime(t *rapid.T) time.Time {
	seconds := rapid.Int64Range(0, 1<<40).Draw(t, "seconds")
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

func TestAlteredHeaderIsRefused(t *testing.T) {
	s := header(t)
	for i := range s.Raw {
		b := bytes.Clone(s.Raw)
		b[i] ^= 1
		if _, err := storage.ParseSignedHeader(b); !errors.Is(err, storage.ErrDenied) && !errors.Is(err, storage.ErrCorrupt) {
			t.Fatalf("byte %d altered: %v", i, err)
		}
		signature := i >= len(s.Raw)-ed25519.SignatureSize // authorises quota, is not part of the id
		if _, err := storage.ParseKnownHeader(b, s.ID); !signature && !errors.Is(err, storage.ErrCorrupt) {
			t.Fatalf("byte %d altered, id known: %v", i, err)
		}
	}
	for _, n := range []int{0, 1, 143, len(s.Raw) - 1} {
		if _, err := storage.ParseSignedHeader(s.Raw[:n]); err == nil {
			t.Errorf("%d bytes accepted", n)
		}
	}
}

// TestHeaderNeedsGrant: quota is only spent by who was told to.
func TestHeaderNeedsGrant(t *testing.T) {
	other := storagetest.NewDevice("other")
	base := header(t).Header
	for name, change := range map[string]func(*storage.Header){
		"no grant":             func(h *storage.Header) { h.Grant = nil },
		"grant for another":    func(h *storage.Header) { h.Grant = other.Grant },
		"grant of another":     func(h *storage.Header) { h.Owner = other.Owner },
		"grant without write":  func(h *storage.Header) { h.Grant = device.With(grid.CapRead|grid.CapExpire, 1).Grant },
		"altered grant":        func(h *storage.Header) { h.Grant = bytes.Clone(h.Grant); h.Grant[50] ^= 1 },
		"unknown capabilities": func(h *storage.Header) { h.Grant = device.With(grid.CapAll+64, 1).Grant },
	} {
		h := base
		change(&h)
		if _, err := storage.SignHeader(device.Key, h); !errors.Is(err, storage.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := header(t)
	now := time.Unix(1_800_000_000, 0)
	if err := s.Allows(device.Grid, now); err != nil {
		t.Error(err)
	}
	if err := s.Allows(grid.GridID{1}, now); !errors.Is(err, storage.ErrDenied) {
		t.Errorf("another grid: %v", err)
	}
}

func TestHeaderBounds(t *testing.T) {
	base := header(t).Header
	for name, change := range map[string]func(*storage.Header){
		"no redundancy":    func(h *storage.Header) { h.Redundancy = storage.Redundancy{} },
		"root missing":     func(h *storage.Header) { h.Roots = h.Roots[1:] },
		"no bytes":         func(h *storage.Header) { h.Bytes = 0 },
		"too many bytes":   func(h *storage.Header) { h.Bytes, h.ShardBytes = storage.MaxSegmentBytes+1, storage.MaxSegmentBytes },
		"shards too small": func(h *storage.Header) { h.ShardBytes = h.Bytes/2 - 1 },
		"shards too large": func(h *storage.Header) { h.ShardBytes = storage.MaxShardBytes + 1 },
		"grant too large":  func(h *storage.Header) { h.Grant = make([]byte, storage.MaxGrantBytes+1) },
		"negative floor":   func(h *storage.Header) { h.Floor = -1 },
		"endless floor":    func(h *storage.Header) { h.Floor = 1 << 62 },
	} {
		h := base
		change(&h)
		if _, err := storage.SignHeader(device.Key, h); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestLaterHeader: a header of a later version, with fields that this one does
// not know, is read as far as the fixed prefix goes, and kept whole.
func TestLaterHeader(t *testing.T) {
	raw := laterHeader(t, 2, 100)
	s, err := storage.ParseSignedHeader(raw)
	if err != nil || s.Version != 2 || !bytes.Equal(s.Raw, raw) || !reflect.DeepEqual(s.Header, header(t).Header) {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, err := storage.ParseSignedHeader(laterHeader(t, 1, 100)); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("version 1 with fields that it does not have: %v", err)
	}
	if _, err := storage.ParseSignedHeader(laterHeader(t, 0, 0)); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("version 0: %v", err)
	}
}

func TestHolders(t *testing.T) {
	a, b := storagetest.Peer("a"), storagetest.Peer("b")
	merged := storage.MergeHolders(
		[]storage.Holder{{Shard: 1, Peer: a, Epoch: 2}, {Shard: 0, Peer: a}, {Shard: 7, Peer: a}, {Shard: -1, Peer: a}},
		[]storage.Holder{{Shard: 1, Peer: b, Epoch: 1}, {Shard: 0, Peer: b, Epoch: 1}, {Shard: 2}}, 3)
	if want := []storage.Holder{{Shard: 0, Peer: b, Epoch: 1}, {Shard: 1, Peer: a, Epoch: 2}}; !slices.Equal(merged, want) {
		t.Errorf("%v, want %v", merged, want)
	}
	back, err := storage.ParseHolders(storage.AppendHolders(nil, merged))
	if err != nil || !slices.Equal(back, merged) {
		t.Errorf("%v, %v", back, err)
	}
	for _, b := range [][]byte{make([]byte, 1), make([]byte, 37), make([]byte, 37*31), append([]byte{30}, bytes.Repeat([]byte{1}, 36)...)} {
		if _, err := storage.ParseHolders(b); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
}

func TestHeadRoundTrip(t *testing.T) {
	first := device.Head(t, vault, storage.SignedHead{}, "one")
	second := device.Head(t, vault, first, "two")
	back, err := storage.ParseHead(second.Raw)
	if err != nil || !reflect.DeepEqual(back, second) || string(back.Sealed) != "two" || back.Epoch != 1 {
		t.Fatalf("%+v, %v", back, err)
	}
	if !second.Follows(first) || first.Follows(second) || !second.Newer(first) {
		t.Error("order of heads")
	}
	recovered := device.With(grid.CapWrite, 2).Head(t, vault, storage.SignedHead{}, "recovered")
	if !recovered.Newer(second) || second.Newer(recovered) {
		t.Error("a higher epoch does not stand above a higher number")
	}
	if _, err := storage.SignHead(device.Key, storage.Head{Vault: vault, Owner: device.Owner, Seq: 2, Grant: device.Grant}); err == nil {
		t.Error("second head without a previous one accepted")
	}
	if _, err := storage.SignHead(device.Key, storage.Head{Vault: vault, Owner: device.Owner, Seq: 1, Grant: device.Grant,
		Sealed: make([]byte, storage.MaxHeadBytes)}); err == nil {
		t.Error("huge head accepted")
	}
}
