package roster

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"gotong/grid"
	"gotong/grid/identity"
	rosterv1 "gotong/proto/roster/v1"
)

// Bounds of a roster. They are part of the rules: what one peer refuses, every
// peer refuses.
const (
	MaxStatementBytes = 16 << 10 // one encoded statement
	MaxStatements     = 1 << 16  // in one roster
	MaxRosterBytes    = 64 << 20 // encoded statements of one roster
	MaxChain          = 4096     // statements of one author in one epoch
	MaxEpoch          = 255      // of an author
	MaxCuts           = 128      // in one removal, or in one disown
)

// ErrStatement says that bytes are not a valid statement of this grid. Test
// with errors.Is.
var ErrStatement = errors.New("not a valid roster statement")

// Hash names a statement: SHA-256 of its encoded bytes.
type Hash [sha256.Size]byte

// HashOf returns the hash of an encoded statement.
func HashOf(statement []byte) Hash { return sha256.Sum256(statement) }

type kind byte

const (
	kindGenesis kind = 1 + iota
	kindAdmit
	kindDevice
	kindRemove
	kindDisown
)

// domains separate the kinds, so that the kind byte, which is outside the
// signature, cannot be changed.
var domains = map[kind]identity.Domain{
	kindGenesis: "gotong roster genesis v1",
	kindAdmit:   "gotong roster admit v1",
	kindDevice:  "gotong roster device v1",
	kindRemove:  "gotong roster remove v1",
	kindDisown:  "gotong roster disown v1",
}

// link is the place of a statement in its author's chain.
type link struct {
	epoch    uint32
	number   uint32
	previous Hash
}

// cut says which statements of a removed author still count: all of lower
// epochs, and of its epoch those up to number. hash picks the right branch of a
// fork.
type cut struct {
	epoch  uint32
	number uint32
	hash   Hash
}

// below reports whether c leaves less than other. Of two cuts at one number
// with different hashes one has to win everywhere; that is the lower hash.
func (c cut) below(other cut) bool {
	return cmp.Or(
		cmp.Compare(c.epoch, other.epoch),
		cmp.Compare(c.number, other.number),
		bytes.Compare(c.hash[:], other.hash[:]),
	) < 0
}

// disown is an owner's word that some of their peers were in other hands.
type disown struct {
	owner grid.OwnerID
	cuts  map[grid.PeerID]cut
}

type removal struct {
	peer  grid.PeerID  // either this
	owner grid.OwnerID // or this
	cuts  map[grid.PeerID]cut
}

// statement is one verified statement. It is never changed.
type statement struct {
	raw         []byte
	hash        Hash
	kind        kind
	author      grid.PeerID // of admit and remove
	link        link        // of admit and remove
	admission   *admission  // of genesis, admit and device
	removal     *removal    // of remove
	disown      *disown     // of disown
	grantAdmin  bool        // of admit
	authorEpoch uint32      // of admit
	name        string      // of genesis
}

// parseStatement verifies and reads one statement of grid g. Whether it is
// valid depends on its bytes alone, never on what else is known. It keeps a
// reference to raw.
func parseStatement(g grid.GridID, raw []byte) (*statement, error) {
	if len(raw) == 0 || len(raw) > MaxStatementBytes {
		return nil, fmt.Errorf("%w: %d bytes", ErrStatement, len(raw))
	}
	s := &statement{raw: raw, hash: HashOf(raw), kind: kind(raw[0])}
	domain, ok := domains[s.kind]
	if !ok {
		return nil, fmt.Errorf("%w: kind %d is not known to this version", ErrStatement, raw[0])
	}
	signed, err := identity.ParseSigned(raw[1:])
	if err == nil {
		err = signed.Verify(domain)
	}
	if err == nil {
		err = s.parseBody(g, signed)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	return s, nil
}

func (s *statement) parseBody(g grid.GridID, signed identity.Signed) error {
	switch s.kind {
	case kindGenesis:
		return s.parseGenesis(g, signed)
	case kindAdmit:
		return s.parseAdmit(g, signed)
	case kindDevice:
		return s.parseDevice(g, signed)
	case kindRemove:
		return s.parseRemove(g, signed)
	default:
		return s.parseDisown(g, signed)
	}
}

func (s *statement) parseGenesis(g grid.GridID, signed identity.Signed) error {
	var m rosterv1.Genesis
	if err := unmarshal(signed.Body, &m); err != nil {
		return err
	}
	if err := checkGridName(m.GetName()); err != nil {
		return err
	}
	if len(m.GetNonce()) != nonceBytes || gridIDOf(signed.Key, m.GetNonce(), m.GetName()) != g {
		return errors.New("genesis of another grid")
	}
	s.name = m.GetName()
	return s.admit(g, m.GetPeerKey(), m.GetDelegation(), m.GetConsent(), signed.Key)
}

func (s *statement) parseAdmit(g grid.GridID, signed identity.Signed) error {
	var m rosterv1.Admit
	if err := unmarshal(signed.Body, &m); err != nil {
		return err
	}
	if err := s.chain(g, signed.Key, m.GetGrid(), m.GetLink()); err != nil {
		return err
	}
	if m.GetAuthorEpoch() > MaxEpoch {
		return fmt.Errorf("author epoch %d", m.GetAuthorEpoch())
	}
	s.grantAdmin, s.authorEpoch = m.GetGrantAdmin(), m.GetAuthorEpoch()
	return s.admit(g, m.GetPeerKey(), m.GetDelegation(), m.GetConsent(), nil)
}

func (s *statement) parseDevice(g grid.GridID, signed identity.Signed) error {
	var m rosterv1.Device
	if err := unmarshal(signed.Body, &m); err != nil {
		return err
	}
	if string(m.GetGrid()) != string(g[:]) {
		return errors.New("statement of another grid")
	}
	return s.admit(g, m.GetPeerKey(), m.GetDelegation(), m.GetConsent(), signed.Key)
}

func (s *statement) parseRemove(g grid.GridID, signed identity.Signed) error {
	var m rosterv1.Remove
	if err := unmarshal(signed.Body, &m); err != nil {
		return err
	}
	if err := s.chain(g, signed.Key, m.GetGrid(), m.GetLink()); err != nil {
		return err
	}
	s.removal = &removal{}
	switch peer, owner := m.GetPeer(), m.GetOwner(); {
	case len(peer) == len(s.removal.peer) && len(owner) == 0:
		s.removal.peer = grid.PeerID(peer)
	case len(owner) == len(s.removal.owner) && len(peer) == 0:
		s.removal.owner = grid.OwnerID(owner)
	default:
		return errors.New("a removal names either a peer or an owner")
	}
	var err error
	if s.removal.cuts, err = parseCuts(m.GetCuts()); err != nil {
		return err
	}
	for peer := range s.removal.cuts {
		if !s.removal.peer.IsZero() && peer != s.removal.peer {
			return errors.New("removal of a peer with a cut of another one")
		}
	}
	return nil
}

func (s *statement) parseDisown(g grid.GridID, signed identity.Signed) error {
	var m rosterv1.Disown
	if err := unmarshal(signed.Body, &m); err != nil {
		return err
	}
	if string(m.GetGrid()) != string(g[:]) {
		return errors.New("statement of another grid")
	}
	cuts, err := parseCuts(m.GetCuts())
	if err != nil {
		return err
	}
	s.disown = &disown{owner: grid.OwnerIDOf(signed.Key), cuts: cuts}
	return nil
}

func parseCuts(list []*rosterv1.Cut) (map[grid.PeerID]cut, error) {
	if len(list) > MaxCuts {
		return nil, fmt.Errorf("%d cuts", len(list))
	}
	cuts := map[grid.PeerID]cut{}
	for _, m := range list {
		c := cut{epoch: m.GetEpoch(), number: m.GetNumber()}
		wantHash := 0
		if c.number > 0 {
			wantHash = len(c.hash)
		}
		if len(m.GetPeer()) != len(grid.PeerID{}) || len(m.GetHash()) != wantHash ||
			c.epoch > MaxEpoch || c.number > MaxChain {
			return nil, errors.New("a malformed cut")
		}
		copy(c.hash[:], m.GetHash())
		peer := grid.PeerID(m.GetPeer())
		if _, twice := cuts[peer]; twice {
			return nil, errors.New("two cuts of one peer")
		}
		cuts[peer] = c
	}
	return cuts, nil
}

// chain reads what chained statements have in common.
func (s *statement) chain(g grid.GridID, author ed25519.PublicKey, named []byte, l *rosterv1.Link) error {
	if string(named) != string(g[:]) {
		return errors.New("statement of another grid")
	}
	s.author = grid.PeerIDOf(author)
	s.link = link{epoch: l.GetEpoch(), number: l.GetNumber()}
	if s.link.number == 0 || s.link.number > MaxChain || s.link.epoch > MaxEpoch || len(l.GetPrevious()) != len(Hash{}) {
		return errors.New("statement with a malformed link")
	}
	s.link.previous = Hash(l.GetPrevious())
	if (s.link.number == 1) != (s.link.previous == Hash{}) {
		return errors.New("exactly the first statement of a chain has none before it")
	}
	return nil
}

// admit reads the admission; owner, when not nil, must be the delegating key.
func (s *statement) admit(g grid.GridID, peerKey, delegation, consent []byte, owner ed25519.PublicKey) error {
	a, err := openAdmission(g, peerKey, delegation, consent)
	if err != nil {
		return err
	}
	if owner != nil && !owner.Equal(a.ownerKey) {
		return errors.New("signed by another owner than the delegation")
	}
	s.admission = a
	return nil
}

// unmarshal reads a body and refuses what this version does not know: peers
// that understand a statement differently would disagree on who is a member.
func unmarshal(body []byte, m proto.Message) error {
	if err := proto.Unmarshal(body, m); err != nil {
		return err
	}
	return refuseUnknown(m.ProtoReflect())
}

func refuseUnknown(m protoreflect.Message) (err error) {
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("unknown fields in %s", m.Descriptor().Name())
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				if err = refuseUnknown(v.List().Get(i).Message()); err != nil {
					break
				}
			}
		default:
			err = refuseUnknown(v.Message())
		}
		return err == nil
	})
	return err
}
