package storage_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"testing"

	"gotong/grid/identity"
	"gotong/storage"
)

// laterHeader is the header of the other tests under another version number,
// with more bytes at its end, signed anew.
func laterHeader(t testing.TB, version, more int) []byte {
	raw := header(t).Raw
	body := append(bytes.Clone(raw[:len(raw)-ed25519.SignatureSize]), make([]byte, more)...)
	binary.BigEndian.PutUint16(body[4:], uint16(version))
	binary.BigEndian.PutUint16(body[6:], uint16(len(body)))
	signed := identity.Sign(device.Key, storage.DomainHeader, body)
	return append(body, signed.Signature...)
}

// FuzzHeader signs what the fuzzer makes of a body, to get past the signature:
// what is accepted stays within the bounds, and what this version understands
// in full encodes to the same bytes again.
func FuzzHeader(f *testing.F) {
	raw := header(f).Raw
	f.Add(raw[:len(raw)-ed25519.SignatureSize])
	later := laterHeader(f, 2, 10)
	f.Add(later[:len(later)-ed25519.SignatureSize])
	ofJob := device.JobSegment(f, jobGrant(f), storage.Redundancy{K: 2, N: 3}, 64, "a").Header.Raw
	f.Add(ofJob[:len(ofJob)-ed25519.SignatureSize])
	f.Fuzz(func(t *testing.T, body []byte) {
		signed := identity.Sign(device.Key, storage.DomainHeader, body)
		s, err := storage.ParseSignedHeader(append(bytes.Clone(body), signed.Signature...))
		if err != nil {
			return
		}
		if err := s.Header.Validate(); err != nil || s.Owner != device.Owner || s.Signer != device.Peer {
			t.Fatalf("accepted: %v", err)
		}
		if s.Version != 1 {
			return
		}
		again, err := storage.SignHeader(device.Key, s.Header)
		if err != nil || again.ID != s.ID || !bytes.Equal(again.Raw, s.Raw) {
			t.Fatalf("encodes to other bytes: %v", err)
		}
	})
}

// FuzzJobGrant does the same for job grants.
func FuzzJobGrant(f *testing.F) {
	signed, err := identity.ParseSigned(jobGrant(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed.Body)
	f.Fuzz(func(t *testing.T, body []byte) {
		raw := identity.Sign(device.Key, storage.DomainJob, body).Encode()
		g, err := storage.OpenJobGrant(raw)
		if err != nil {
			return
		}
		if err := g.Validate(); err != nil || g.Owner != device.Owner || g.Signer != device.Peer {
			t.Fatalf("accepted: %v", err)
		}
		again, err := storage.SignJobGrant(device.Key, g.JobGrant)
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("encodes to other bytes: %v", err)
		}
	})
}

// FuzzHead does the same for heads.
func FuzzHead(f *testing.F) {
	first := device.Head(f, vault, storage.SignedHead{}, "state")
	for _, head := range []storage.SignedHead{first, device.Head(f, vault, first, "next")} {
		f.Add(head.Raw[:len(head.Raw)-ed25519.SignatureSize])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		signed := identity.Sign(device.Key, storage.DomainHead, body)
		s, err := storage.ParseHead(append(bytes.Clone(body), signed.Signature...))
		if err != nil {
			return
		}
		again, err := storage.SignHead(device.Key, s.Head)
		if err != nil || again.ID != s.ID || !bytes.Equal(again.Raw, s.Raw) {
			t.Fatalf("encodes to other bytes: %v", err)
		}
	})
}

func FuzzParseHolders(f *testing.F) {
	f.Add(storage.AppendHolders(nil, []storage.Holder{{Shard: 2, Peer: device.Peer, Epoch: 1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		holders, err := storage.ParseHolders(b)
		if err == nil && !bytes.Equal(storage.AppendHolders(nil, holders), b) {
			t.Fatal("encodes to other bytes")
		}
	})
}

func FuzzParseShardID(f *testing.F) {
	f.Add(storage.ShardID{Segment: header(f).ID, Index: 2}.String())
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := storage.ParseShardID(s); err == nil && id.String() != s {
			t.Fatalf("second spelling of %s", id)
		}
	})
}
