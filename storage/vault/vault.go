package vault

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"gotong/grid"
	"gotong/grid/disk"
	"gotong/storage"
	"gotong/storage/seal"
)

const (
	secretsName = "secrets"
	headsName   = "heads"
	indexName   = "index.db"
	stateName   = "state"

	deletionsName = "deletions"
)

// Config is what a vault needs to know of its surroundings.
type Config struct {
	// Segments stores and finds segments. Required.
	Segments Segments
	// Node signs heads. Required to write.
	Node ed25519.PrivateKey
	// Owner is whose vault it is.
	Owner grid.OwnerID
	// Grant returns the encoded delegation of the owner to this node.
	Grant func() []byte
	// Floor is how long holders keep a head after a newer one came.
	Floor func() time.Duration
	// Recipients are X25519 public keys that can open snapshot records, besides
	// the owner's read key.
	Recipients [][]byte
	// PacksInFlight is how many packs are sent at once; 0 means DefaultPacksInFlight.
	PacksInFlight int
	// Logger gets what an operator acts on; nil discards.
	Logger *slog.Logger
}

// Vault is an open vault. It is safe for concurrent use.
type Vault struct {
	dir      string
	secrets  seal.VaultSecrets
	config   Config
	segments Segments
	log      *slog.Logger
	files    files
	index    *index
	decoder  *zstd.Decoder
	now      func() time.Time

	deletions *deletionQueue
	past      atomic.Pointer[index]
	writes    atomic.Uint64 // counts sessions and new heads as they begin

	syncing    chan struct{} // held by whoever brings the index up to date
	publishing chan struct{} // held by whoever makes a new head
	pruning    chan struct{} // held by a prune
	deleting   chan struct{} // held by whoever signs and sends deletions

	// refs is held for reading while something in the index becomes needed by
	// the session, and for writing while a prune condemns what nothing needs.
	refs sync.RWMutex

	mu      sync.Mutex
	heads   *headChain
	foreign storage.SignedHead // what peers have, when this disk lost its heads and cannot tell whether that is all
	session *Session           // the one that writes
}

// Create makes an empty vault in dir, which must not hold one. Open it then.
func Create(dir string, secrets seal.VaultSecrets) error {
	return create(dir, secrets, diskFiles{})
}

func create(dir string, secrets seal.VaultSecrets, files files) error {
	path := filepath.Join(dir, secretsName)
	if _, err := os.Stat(path); err == nil {
		return fmt.Errorf("%w: %s", ErrExists, dir)
	}
	if err := os.MkdirAll(filepath.Join(dir, headsName), 0o700); err != nil {
		return fmt.Errorf("create vault: %w", err)
	}
	b, err := secrets.Marshal()
	if err != nil {
		return fmt.Errorf("create vault: %w", err)
	}
	if err := files.writeDurable(path, b); err != nil {
		return fmt.Errorf("create vault: %w", err)
	}
	return nil
}

// Open opens the vault in dir. Errors: ErrNoVault, ErrBusy when another process
// has it open, storage.ErrCorrupt when secrets or heads cannot be read. A
// broken index is no error: it is set aside. The caller closes the vault.
func Open(dir string, config Config) (*Vault, error) { return open(dir, config, diskFiles{}) }

func open(dir string, config Config, files files) (*Vault, error) {
	b, err := os.ReadFile(filepath.Join(dir, secretsName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNoVault, dir)
	} else if err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	secrets, err := seal.ParseSecrets(b)
	if err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	if config.PacksInFlight == 0 {
		config.PacksInFlight = DefaultPacksInFlight
	}
	v := &Vault{dir: dir, secrets: secrets, config: config, segments: config.Segments, log: config.Logger, files: files,
		now: time.Now, deletions: &deletionQueue{dir: filepath.Join(dir, deletionsName), files: files},
		syncing: make(chan struct{}, 1), publishing: make(chan struct{}, 1),
		pruning: make(chan struct{}, 1), deleting: make(chan struct{}, 1)}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{dir, filepath.Join(dir, headsName), v.deletions.dir} {
		if err := disk.RemoveAllTemps(dir); err != nil {
			return nil, fmt.Errorf("open vault: %w", err)
		}
	}
	if v.heads, err = openHeads(filepath.Join(dir, headsName), secrets.Vault(), files); err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	if v.decoder, err = newDecoder(); err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	if err := os.MkdirAll(v.StateDir(), 0o700); err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	if err := errors.Join(removePast(dir), removeSpills(dir)); err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	if err := v.openIndex(); err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	return v, nil
}

func (v *Vault) openIndex() (err error) {
	path := filepath.Join(v.dir, indexName)
	v.index, err = openIndex(path, v.secrets.Vault())
	if err == nil {
		err = v.index.pardon() // nothing prunes yet
	}
	if !errors.Is(err, errIndexBroken) {
		return err
	}
	if v.index != nil {
		if err := v.index.close(); err != nil {
			v.log.Warn("vault index", "err", err)
		}
	}
	v.log.Warn("vault index is broken and set aside; it will be made anew", "err", err)
	v.index = &index{path: path, vault: v.secrets.Vault()}
	return v.index.setAside()
}

// Close closes the vault. Sessions and readers must have ended.
func (v *Vault) Close() error {
	v.decoder.Close()
	return errors.Join(v.index.close(), v.closePast())
}

// ID returns the vault's id.
func (v *Vault) ID() storage.VaultID { return v.secrets.Vault() }

// StateDir is a directory inside the vault's in which storage/snapshot keeps
// what it saw at the last backup.
func (v *Vault) StateDir() string { return filepath.Join(v.dir, stateName) }

// CanRead reports whether snapshots can be opened on this device.
func (v *Vault) CanRead() bool { return v.secrets.CanRead() }

// Head returns the newest head that this device knows; the zero value before
// the first snapshot.
func (v *Vault) Head() storage.SignedHead {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.heads.newest()
}

// Begin starts the one session that may write. Errors: ErrBusy; whatever stands
// in the way of bringing the index up to date. Every session ends with Commit
// or Abort.
func (v *Vault) Begin(ctx context.Context) (*Session, error) {
	// Before the session is known: an index that is made anew ends those that
	// are.
	if err := v.sync(ctx); err != nil {
		return nil, fmt.Errorf("bring index up to date: %w", err)
	}
	if err := v.surveyAdopted(ctx); err != nil {
		return nil, fmt.Errorf("find out what friends still keep: %w", err)
	}
	if err := v.index.markAge(v.now()); err != nil {
		return nil, err
	}
	s := newSession(ctx, v)
	if err := v.acquire(s); err != nil {
		s.fail(err)
		return nil, err
	}
	s.lookForNewerHead()
	go s.commitPacks()
	return s, nil
}

func (v *Vault) acquire(s *Session) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.session != nil {
		return fmt.Errorf("%w: a backup is running", ErrBusy)
	}
	v.session = s
	v.writes.Add(1)
	return nil
}

// release gives the place of s free; it reports whether s held it.
func (v *Vault) release(s *Session) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.session != s {
		return false
	}
	v.session = nil
	return true
}
