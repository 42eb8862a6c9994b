package storage_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gotong/grid"
	"gotong/grid/identity"
	"gotong/storage"
)

func deletion(t testing.TB) storage.SignedDeletion {
	return device.Deletion(t, vault, 7, storage.SegmentID{2}, storage.SegmentID{1}, storage.SegmentID{2})
}

// TestDeletionIsFixed pins the bytes of version 1.
func TestDeletionIsFixed(t *testing.T) {
	const stored = "0a5a3c5719881b94"
	id := deletion(t).ID
	if got := hex.EncodeToString(id[:8]); got != stored {
		t.Errorf("id of the same deletion was %s…, is %s…", stored, got)
	}
}

func TestDeletionRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := storage.Deletion{
			Vault: vault, Owner: device.Owner, Grant: device.Grant, Created: drawTime(rt),
			Number: rapid.Uint64Min(1).Draw(rt, "number"),
		}
		ids := rapid.SliceOfNDistinct(rapid.Uint32(), 1, 50, rapid.ID).Draw(rt, "segments")
		for _, id := range ids {
			want.Segments = append(want.Segments, storage.SegmentID(binary.BigEndian.AppendUint32(make([]byte, 28), id)))
		}
		s, err := storage.SignDeletion(device.Key, want)
		if err != nil {
			rt.Fatal(err)
		}
		for _, id := range want.Segments {
			if !s.Names(id) {
				rt.Fatalf("does not name %v", id)
			}
		}
		if s.Names(storage.SegmentID{1}) || len(s.Segments) != len(ids) {
			rt.Fatal("names more than was asked for")
		}
		want.Segments = s.Segments
		if !reflect.DeepEqual(s.Deletion, want) || s.Signer != device.Peer || s.Delegation.Epoch != 1 {
			rt.Fatalf("signed %+v, read %+v", want, s.Deletion)
		}
		known, err := storage.ParseKnownDeletion(s.Raw)
		if err != nil || !reflect.DeepEqual(known.Deletion, want) || known.ID != s.ID {
			rt.Fatal(err)
		}
	})
}

// TestDeletionNeedsGrant: to write is not enough to delete.
func TestDeletionNeedsGrant(t *testing.T) {
	base := deletion(t).Deletion
	for name, change := range map[string]func(*storage.Deletion){
		"no grant":             func(d *storage.Deletion) { d.Grant = nil },
		"grant without expire": func(d *storage.Deletion) { d.Grant = device.With(grid.CapAll&^grid.CapExpire, 1).Grant },
		"another owner":        func(d *storage.Deletion) { d.Owner = grid.OwnerID{1} },
		"altered grant":        func(d *storage.Deletion) { d.Grant = bytes.Clone(d.Grant); d.Grant[50] ^= 1 },
	} {
		d := base
		change(&d)
		if _, err := storage.SignDeletion(device.Key, d); !errors.Is(err, storage.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	onlyExpire := device.With(grid.CapExpire, 1)
	s := onlyExpire.Deletion(t, vault, 1, storage.SegmentID{1})
	now := time.Unix(1_800_000_000, 0)
	if err := s.Allows(device.Grid, now); err != nil {
		t.Error(err)
	}
	if err := s.Allows(grid.GridID{1}, now); !errors.Is(err, storage.ErrDenied) {
		t.Errorf("another grid: %v", err)
	}
}

func TestDeletionBounds(t *testing.T) {
	base := deletion(t).Deletion
	for name, change := range map[string]func(*storage.Deletion){
		"no segments":     func(d *storage.Deletion) { d.Segments = nil },
		"number 0":        func(d *storage.Deletion) { d.Number = 0 },
		"grant too large": func(d *storage.Deletion) { d.Grant = make([]byte, storage.MaxGrantBytes+1) },
		"too many": func(d *storage.Deletion) {
			d.Segments = make([]storage.SegmentID, storage.MaxDeletionSegments+1)
			for i := range d.Segments {
				d.Segments[i] = storage.SegmentID{byte(i >> 8), byte(i)}
			}
		},
	} {
		d := base
		change(&d)
		if _, err := storage.SignDeletion(device.Key, d); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// Segments that do not rise would let one deletion have several ids.
	raw := deletion(t).Raw
	body := bytes.Clone(raw[:len(raw)-ed25519.SignatureSize])
	clear(body[len(body)-32:])
	signed := identity.Sign(device.Key, storage.DomainDeletion, body)
	if _, err := storage.ParseDeletion(append(body, signed.Signature...)); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("segments out of order: %v", err)
	}
}

// FuzzDeletion signs what the fuzzer makes of a body, to get past the signature.
func FuzzDeletion(f *testing.F) {
	raw := deletion(f).Raw
	f.Add(raw[:len(raw)-ed25519.SignatureSize])
	f.Fuzz(func(t *testing.T, body []byte) {
		signed := identity.Sign(device.Key, storage.DomainDeletion, body)
		s, err := storage.ParseDeletion(append(bytes.Clone(body), signed.Signature...))
		if err != nil {
			return
		}
		again, err := storage.SignDeletion(device.Key, s.Deletion)
		if err != nil || again.ID != s.ID || !bytes.Equal(again.Raw, s.Raw) {
			t.Fatalf("encodes to other bytes: %v", err)
		}
	})
}
