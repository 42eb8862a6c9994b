package identity_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/identity"
)

func newKey(t testing.TB) identity.NodeKey {
	t.Helper()
	key, err := identity.NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestSignedRefusesEveryChange(t *testing.T) {
	const domain identity.Domain = "gotong test v1"
	encoded := identity.Sign(newKey(t).Private(), domain, []byte("body")).Encode()
	signed, err := identity.ParseSigned(encoded)
	if err != nil || signed.Verify(domain) != nil {
		t.Fatalf("own bytes: %v %v", err, signed.Verify(domain))
	}
	if err := signed.Verify("gotong other v1"); !errors.Is(err, identity.ErrBadSignature) {
		t.Errorf("other domain: %v", err)
	}
	for i := range encoded {
		changed := bytes.Clone(encoded)
		changed[i] ^= 1
		s, err := identity.ParseSigned(changed)
		if err != nil || !errors.Is(s.Verify(domain), identity.ErrBadSignature) {
			t.Errorf("byte %d changed: %v %v", i, err, s.Verify(domain))
		}
	}
}

func TestDelegationAllows(t *testing.T) {
	phrase, err := identity.NewPhrase()
	if err != nil {
		t.Fatal(err)
	}
	peer, now := newKey(t).PeerID(), time.Unix(1_800_000_000, 0)
	g := grid.GridID{1}
	given := identity.Delegation{Grid: g, Peer: peer, Capabilities: grid.CapWrite | grid.CapRead, Epoch: 3, Created: now.UTC(), Expires: now.Add(time.Hour).UTC()}
	d, owner, err := identity.OpenDelegation(identity.SignDelegation(phrase.OwnerKey(), given))
	if err != nil || d != given {
		t.Fatalf("%+v: %v", d, err)
	}
	if want := grid.OwnerIDOf(identity.SignDelegation(phrase.OwnerKey(), given).Key); owner != want {
		t.Errorf("owner %v, want %v", owner, want)
	}
	if err := d.Allows(g, peer, grid.CapWrite, now); err != nil {
		t.Errorf("allowed: %v", err)
	}
	for name, err := range map[string]error{
		"grid":       d.Allows(grid.GridID{2}, peer, grid.CapWrite, now),
		"peer":       d.Allows(g, grid.PeerID{}, grid.CapWrite, now),
		"capability": d.Allows(g, peer, grid.CapExpire, now),
		"time":       d.Allows(g, peer, grid.CapWrite, now.Add(2*time.Hour)),
	} {
		if !errors.Is(err, identity.ErrDelegation) {
			t.Errorf("%s: %v", name, err)
		}
	}
	given.Capabilities |= 1 << 20
	if _, _, err := identity.OpenDelegation(identity.SignDelegation(phrase.OwnerKey(), given)); !errors.Is(err, identity.ErrDelegation) {
		t.Errorf("unknown capability: %v", err)
	}
}

func FuzzOpenDelegation(f *testing.F) {
	phrase, err := identity.NewPhrase()
	if err != nil {
		f.Fatal(err)
	}
	owner := phrase.OwnerKey()
	f.Add(identity.SignDelegation(owner, identity.Delegation{Capabilities: grid.CapAll, Epoch: 1}).Body)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		d, _, err := identity.OpenDelegation(identity.Sign(owner, identity.DomainDelegation, body))
		if err != nil {
			return
		}
		if again := identity.SignDelegation(owner, d); !bytes.Equal(again.Body, body) {
			t.Fatalf("%x came back as %x", body, again.Body)
		}
	})
}

func FuzzParseSigned(f *testing.F) {
	const domain identity.Domain = "gotong test v1"
	key := newKey(f)
	f.Add(identity.Sign(key.Private(), domain, []byte("body")).Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := identity.ParseSigned(data)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Encode(), data) {
			t.Fatal("bytes changed")
		}
		_ = s.Verify(domain) // hostile bytes must not panic
	})
}
