package invite

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gotong/grid"
	"gotong/grid/disk"
	"gotong/grid/roster"
)

// Bounds of a book.
const (
	MaxInvites  = 256 // kept at once
	MaxWrong    = 3   // wrong proofs that make an invite void
	MaxValid    = 365 * 24 * time.Hour
	keepExpired = 24 * time.Hour // in which a joiner whose answer was lost may come again
)

// ErrTooManyInvites says that the book is full until some expire.
var ErrTooManyInvites = fmt.Errorf("%d invites are open already", MaxInvites)

// Book keeps the invites that this peer made, each in a small file. What it
// decides is on disk before it returns. Its methods may be called from many
// goroutines; one process at a time uses a directory.
type Book struct {
	mu      sync.Mutex
	dir     string
	invites map[ID]stored
	damaged []string // files that were set aside
}

// Damaged names the files that OpenBook set aside.
func (b *Book) Damaged() []string { return b.damaged }

// OpenBook reads the invites in dir and makes the directory if it is missing. A
// damaged file is renamed to *.bad: that invite does not work any more.
func OpenBook(dir string) (*Book, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the invites: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open the invites: %w", err)
	}
	b := &Book{dir: dir, invites: map[ID]stored{}}
	for _, entry := range entries {
		if err := b.load(filepath.Join(dir, entry.Name())); err != nil {
			return nil, fmt.Errorf("open the invites: %w", err)
		}
	}
	return b, nil
}

func (b *Book) load(path string) error {
	switch filepath.Ext(path) {
	case ".tmp": // of a write that a crash interrupted
		return os.Remove(path)
	case fileExt:
	default:
		return nil
	}
	data, err := disk.ReadFile(path, maxFileBytes)
	if err != nil {
		return err
	}
	s, err := parseStored(data)
	if err != nil || fileName(s.id) != filepath.Base(path) {
		bad := strings.TrimSuffix(path, fileExt) + ".bad"
		b.damaged = append(b.damaged, bad)
		return os.Rename(path, bad)
	}
	b.invites[s.id] = s
	return nil
}

// CreateParams describe an invite.
type CreateParams struct {
	Grid       grid.GridID
	GridName   string
	Inviter    grid.PeerID   // this peer
	Addresses  []string      // HOST:PORT of this peer; the first MaxCodeAddresses go into the code
	Valid      time.Duration // from now, up to MaxValid
	GrantAdmin bool          // the joining owner becomes an admin
}

// Create makes an invite for one peer; it is durable when Create returns.
func (b *Book) Create(p CreateParams) (Code, error) {
	if p.Valid <= 0 || p.Valid > MaxValid {
		return Code{}, fmt.Errorf("an invite cannot be valid for %s", p.Valid)
	}
	for _, address := range p.Addresses {
		if err := roster.CheckAddress(address); err != nil {
			return Code{}, fmt.Errorf("invite: %w", err)
		}
	}
	code := Code{
		Grid: p.Grid, GridName: p.GridName, Inviter: p.Inviter,
		Addresses: slices.Clone(p.Addresses[:min(len(p.Addresses), MaxCodeAddresses)]),
		Expires:   time.Now().Add(p.Valid).Truncate(time.Second).UTC(),
	}
	if _, err := rand.Read(code.ID[:]); err != nil {
		return Code{}, fmt.Errorf("make an invite: %w", err)
	}
	if _, err := rand.Read(code.Secret[:]); err != nil {
		return Code{}, fmt.Errorf("make an invite: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.prune(time.Now()); err != nil {
		return Code{}, err
	}
	if len(b.invites) >= MaxInvites {
		return Code{}, ErrTooManyInvites
	}
	return code, b.save(stored{id: code.ID, secret: code.Secret, expires: code.Expires, grantAdmin: p.GrantAdmin})
}

// prune deletes invites that nobody can use any more.
func (b *Book) prune(now time.Time) error {
	for id, s := range b.invites {
		if now.Before(s.expires.Add(keepExpired)) {
			continue
		}
		if err := disk.Remove(filepath.Join(b.dir, fileName(id))); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("delete an expired invite: %w", err)
		}
		delete(b.invites, id)
	}
	return nil
}

// save makes the invite durable, then visible.
func (b *Book) save(s stored) error {
	if err := disk.WriteFile(filepath.Join(b.dir, fileName(s.id)), s.encode(), 0o600); err != nil {
		return fmt.Errorf("store an invite: %w", err)
	}
	b.invites[s.id] = s
	return nil
}

// secret returns the secret of an invite.
func (b *Book) secret(id ID) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.invites[id]
	if !ok {
		return nil, ErrUnknownInvite
	}
	return s.secret[:], nil
}

// check returns the invite if the joiner may use it. proved says whether the
// joiner showed the secret. Wrong proofs against an unused invite are counted
// on disk; only a right one learns more than that it was wrong.
func (b *Book) check(id ID, joiner grid.PeerID, proved bool) (stored, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.invites[id]
	if !ok {
		return stored{}, ErrUnknownInvite
	}
	if proved {
		return s, s.usable(joiner, time.Now())
	}
	if s.usedBy.IsZero() && s.wrong < MaxWrong {
		s.wrong++
		if err := b.save(s); err != nil {
			return stored{}, err
		}
	}
	return stored{}, ErrWrongSecret
}

// use marks the invite as used by the joiner, on disk. The same joiner may use
// it again; of several at once one wins.
func (b *Book) use(id ID, joiner grid.PeerID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.invites[id]
	if !ok {
		return ErrUnknownInvite
	}
	if err := s.usable(joiner, time.Now()); err != nil || s.usedBy == joiner {
		return err
	}
	s.usedBy = joiner
	return b.save(s)
}
