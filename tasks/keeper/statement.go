package keeper

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"gotong/grid"
	"gotong/grid/blake3"
	"gotong/grid/identity"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks"
)

// Kind is what an owner may want of a job.
type Kind uint8

// The kinds of statements.
const (
	KindCancel Kind = 1 + iota // end it now
	KindRetry                  // run again what failed
	KindRemove                 // forget it everywhere
)

// maxStatementBytes bounds an encoded statement, maxReasonBytes the reason in
// it.
const (
	maxStatementBytes = 1 << 10
	maxReasonBytes    = 256
)

// Statement is what an owner wants of a job.
type Statement struct {
	Job  tasks.JobID
	Kind Kind
	// Generation is the one that a cancel ends, or that a retry begins; so a
	// statement that comes late, or again, changes nothing.
	Generation uint32
	At         time.Time
	Why        string
	Signer     grid.PeerID // set by OpenStatement
}

// SignStatement signs s with the node key of one of the owner's devices.
func SignStatement(key ed25519.PrivateKey, s Statement) ([]byte, error) {
	if len(s.Why) > maxReasonBytes {
		s.Why = strings.ToValidUTF8(s.Why[:maxReasonBytes], "")
	}
	body, err := proto.Marshal(&tasksv1.JobStatement{
		Job: s.Job[:], Wish: tasksv1.JobWish(s.Kind), Generation: s.Generation, AtUnix: s.At.Unix(), Why: s.Why,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return identity.Sign(key, DomainStatement, body).Encode(), nil
}

// OpenStatement verifies the signature and reads the statement. Whether its
// signer may speak for the owner is for the caller to judge.
func OpenStatement(raw []byte) (Statement, error) {
	if len(raw) > maxStatementBytes {
		return Statement{}, fmt.Errorf("%w: statement of %d bytes", ErrInvalid, len(raw))
	}
	signed, err := identity.ParseSigned(raw)
	if err == nil {
		err = signed.Verify(DomainStatement)
	}
	if err != nil {
		return Statement{}, fmt.Errorf("%w: statement: %w", ErrDenied, err)
	}
	var m tasksv1.JobStatement
	if err := proto.Unmarshal(signed.Body, &m); err != nil {
		return Statement{}, fmt.Errorf("%w: statement: %w", ErrInvalid, err)
	}
	kind := Kind(m.Wish)
	if int32(m.Wish) != int32(kind) || kind < KindCancel || kind > KindRemove || len(m.Job) != len(tasks.JobID{}) || len(m.Why) > maxReasonBytes {
		return Statement{}, fmt.Errorf("%w: statement", ErrInvalid)
	}
	return Statement{
		Job: tasks.JobID(m.Job), Kind: kind, Generation: m.Generation, At: time.Unix(m.AtUnix, 0).UTC(), Why: m.Why,
		Signer: grid.PeerIDOf(signed.Key),
	}, nil
}

// said is the set of statements that a keeper has of one job.
type said struct {
	raw    [][]byte // sorted by their hashes
	opened []Statement
}

func hashOf(raw []byte) [32]byte { return blake3.Sum256(raw) }

// add takes in a statement and reports whether it is new. It must be valid for
// the job.
func (s *said) add(raw []byte, opened Statement) bool {
	at, found := slices.BinarySearchFunc(s.raw, hashOf(raw), func(have []byte, want [32]byte) int {
		sum := hashOf(have)
		return slices.Compare(sum[:], want[:])
	})
	if found || len(s.raw) >= statementsMax {
		return false
	}
	s.raw = slices.Insert(s.raw, at, raw)
	s.opened = slices.Insert(s.opened, at, opened)
	return true
}

// digest is equal where the sets are.
func (s *said) digest() []byte {
	if len(s.raw) == 0 {
		return nil
	}
	h := blake3.New()
	for _, raw := range s.raw {
		sum := hashOf(raw)
		h.Write(sum[:])
	}
	return h.Sum(nil)
}

// find returns the first statement of a kind for which ok holds.
func (s *said) find(kind Kind, ok func(Statement) bool) (Statement, bool) {
	for _, statement := range s.opened {
		if statement.Kind == kind && ok(statement) {
			return statement, true
		}
	}
	return Statement{}, false
}

// proof shows that caller knows the plan to callee, on whose connection the
// caller's identity is proved.
func proof(plan []byte, job tasks.JobID, caller, callee grid.PeerID) []byte {
	sum := hashOf(plan)
	key := blake3.DeriveKey("gotong keeper proof v1", slices.Concat(sum[:], job[:], caller[:], callee[:]))
	return key[:]
}
