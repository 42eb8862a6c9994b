package grid_test

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"

	"gotong/grid"
)

func TestIDsAreOnePersonOrPeer(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	peer, owner := grid.PeerIDOf(key), grid.OwnerIDOf(key)
	if peer.String() == owner.String() {
		t.Error("one key names a peer and an owner alike")
	}
	if (grid.PeerID{}) == peer || peer.IsZero() || !strings.HasPrefix(peer.String(), peer.Short()) {
		t.Errorf("peer %s, short %s", peer, peer.Short())
	}
	if got, err := grid.ParsePeerID(peer.String()); err != nil || got != peer {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := grid.ParseOwnerID(owner.String()); err != nil || got != owner {
		t.Errorf("%s, %v", got, err)
	}
}

// FuzzParsePeerID: an id has one spelling.
func FuzzParsePeerID(f *testing.F) {
	zero := grid.PeerID{}.String()
	for _, s := range []string{"", zero, strings.ToUpper(zero), zero[:51] + "b", zero + "a", zero[:50] + "=="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := grid.ParsePeerID(s); err == nil && id.String() != s {
			t.Errorf("%q was read as %s", s, id)
		}
	})
}

func TestParseHex(t *testing.T) {
	var got [3]byte
	if err := grid.ParseHex("thing", "01ab00", got[:]); err != nil || got != [3]byte{1, 0xab, 0} {
		t.Errorf("%x, %v", got, err)
	}
	for _, bad := range []string{"", "01ab", "01AB00", "01ab0000", "01ab0", "zzzzzz"} {
		dst := []byte{7, 7, 7}
		if err := grid.ParseHex("thing", bad, dst); err == nil || !bytes.Equal(dst, []byte{7, 7, 7}) {
			t.Errorf("%q gave %x, %v", bad, dst, err)
		}
	}
}
