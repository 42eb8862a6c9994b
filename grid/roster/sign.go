package roster

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"gotong/grid"
	"gotong/grid/identity"
	rosterv1 "gotong/proto/roster/v1"
)

const (
	nonceBytes = 32
	gridDomain = "gotong grid v1\x00"
)

// ErrName says that a text cannot be the name of a grid. Test with errors.Is.
var ErrName = errors.New("not a usable name for a grid")

func gridIDOf(owner ed25519.PublicKey, nonce []byte, name string) grid.GridID {
	h := sha256.New()
	h.Write([]byte(gridDomain))
	h.Write(owner)
	h.Write(nonce)
	h.Write([]byte(name))
	return grid.GridID(h.Sum(nil))
}

// checkGridName accepts 1 to grid.MaxNameLen bytes of UTF-8 without control
// characters.
func checkGridName(name string) error {
	if name == "" || len(name) > grid.MaxNameLen || !utf8.ValidString(name) {
		return fmt.Errorf("%w: want 1 to %d bytes of UTF-8", ErrName, grid.MaxNameLen)
	}
	for _, r := range name {
		if unicode.IsControl(r) {
			return fmt.Errorf("%w: it has a control character", ErrName)
		}
	}
	return nil
}

// signGenesis founds a grid of that name for the owner and its first peer.
func signGenesis(owner ed25519.PrivateKey, node identity.NodeKey, name string, d identity.Delegation) (grid.GridID, []byte, error) {
	if err := checkGridName(name); err != nil {
		return grid.GridID{}, nil, err
	}
	nonce := make([]byte, nonceBytes)
	if _, err := rand.Read(nonce); err != nil {
		return grid.GridID{}, nil, fmt.Errorf("make the nonce of the grid: %w", err)
	}
	public := owner.Public().(ed25519.PublicKey)
	g := gridIDOf(public, nonce, name)
	d.Grid, d.Peer = g, node.PeerID()
	consent := SignConsent(node, Consent{Grid: g, Owner: grid.OwnerIDOf(public)})
	return g, sign(owner, kindGenesis, &rosterv1.Genesis{
		Nonce: nonce, Name: name, PeerKey: node.Public(),
		Delegation: identity.SignDelegation(owner, d).Encode(), Consent: consent.Encode(),
	}), nil
}

// SignDevice returns the statement by which an owner who is a member brings in
// another peer: a second device, or a recovered machine. Any member takes it
// (Merge, or invite.Introduce). d names the grid and the capabilities; its peer
// is set to that of node.
func SignDevice(owner ed25519.PrivateKey, node identity.NodeKey, d identity.Delegation) []byte {
	d.Peer = node.PeerID()
	consent := SignConsent(node, Consent{Grid: d.Grid, Owner: grid.OwnerIDOf(owner.Public().(ed25519.PublicKey))})
	return sign(owner, kindDevice, &rosterv1.Device{
		Grid: d.Grid[:], PeerKey: node.Public(),
		Delegation: identity.SignDelegation(owner, d).Encode(), Consent: consent.Encode(),
	})
}

func signAdmit(node identity.NodeKey, g grid.GridID, l link, p AdmitParams, epoch uint32) []byte {
	return sign(node.Private(), kindAdmit, &rosterv1.Admit{
		Grid: g[:], Link: l.message(), PeerKey: p.PeerKey,
		Delegation: p.Delegation.Encode(), Consent: p.Consent.Encode(),
		GrantAdmin: p.GrantAdmin, AuthorEpoch: epoch,
	})
}

func signRemove(node identity.NodeKey, g grid.GridID, l link, r removal) []byte {
	m := &rosterv1.Remove{Grid: g[:], Link: l.message()}
	if r.peer.IsZero() {
		m.Owner = r.owner[:]
	} else {
		m.Peer = r.peer[:]
	}
	m.Cuts = cutMessages(r.cuts)
	return sign(node.Private(), kindRemove, m)
}

func signDisown(owner ed25519.PrivateKey, g grid.GridID, cuts map[grid.PeerID]cut) []byte {
	return sign(owner, kindDisown, &rosterv1.Disown{Grid: g[:], Cuts: cutMessages(cuts)})
}

func cutMessages(cuts map[grid.PeerID]cut) (out []*rosterv1.Cut) {
	for peer, c := range cuts {
		entry := &rosterv1.Cut{Peer: peer[:], Epoch: c.epoch, Number: c.number}
		if c.number > 0 {
			entry.Hash = c.hash[:]
		}
		out = append(out, entry)
	}
	slices.SortFunc(out, func(a, b *rosterv1.Cut) int { return slices.Compare(a.Peer, b.Peer) })
	return out
}

func (l link) message() *rosterv1.Link {
	return &rosterv1.Link{Epoch: l.epoch, Number: l.number, Previous: l.previous[:]}
}

func sign(key ed25519.PrivateKey, k kind, m proto.Message) []byte {
	body, err := proto.Marshal(m)
	if err != nil { // only for text that is not UTF-8, which was checked
		panic("roster: encode statement: " + err.Error())
	}
	return append([]byte{byte(k)}, identity.Sign(key, domains[k], body).Encode()...)
}
