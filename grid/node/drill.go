package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	controlv1 "gotong/proto/control/v1"
	"gotong/storage"
	"gotong/storage/seal"
	"gotong/storage/segments"
	"gotong/storage/snapshot"
	"gotong/storage/vault"
)

// DrillResult says how a drill went. It is kept in the home as JSON.
type DrillResult struct {
	Time        time.Time `json:"time"` // when it ended
	OK          bool      `json:"ok"`
	Passed      time.Time `json:"passed,omitzero"` // when the last one ended that passed
	What        string    `json:"what"`            // DrillFiles or DrillSegments
	Phrase      bool      `json:"phrase"`          // all keys came from the phrase
	Snapshot    string    `json:"snapshot"`        // from which the files were drawn
	Files       uint64    `json:"files"`           // that came back as the snapshot has them
	Bytes       uint64    `json:"bytes"`           // of them, or of the segments
	Segments    uint64    `json:"segments"`        // that were fetched
	SitesNeeded int       `json:"sites_needed"`
	Seconds     float64   `json:"seconds"`
	Head        uint64    `json:"head"` // number of the newest head that friends gave
	Problem     string    `json:"problem,omitempty"`
}

// What a drill proves: that files come back, or, on a write-only device without
// the phrase, that segments decode and are what they ought to be.
const (
	DrillFiles    = "files"
	DrillSegments = "segments"
)

const (
	drillScratch  = ".drill-" // directories in the home, swept by the next drill
	defaultDrill  = 20        // files, or segments
	maxDrill      = 10_000
	maxDrillNamed = 3 // files that a problem names
)

// drills keeps drills from running at once.
type drills struct {
	running sync.Mutex
}

// Drill restores files drawn at random from the newest snapshot as a device
// would that has lost everything: with an empty index, in a scratch directory,
// from the heads that friends have. It compares them with the hashes of the
// snapshot, and does not touch the vault of this device. The zero secrets mean
// those of this device. The result is kept; a drill that failed is no error.
func (p *Peer) Drill(ctx context.Context, files int, secrets seal.VaultSecrets) (DrillResult, error) {
	if !p.drills.running.TryLock() {
		return DrillResult{}, &Failure{Kind: controlv1.Kind_KIND_BUSY, What: "another drill is running", Meaning: "it goes on", Next: "the same command later"}
	}
	defer p.drills.running.Unlock()
	if files == 0 {
		files = defaultDrill
	}
	d := &drill{peer: p, files: min(max(files, 1), maxDrill), secrets: secrets, result: DrillResult{Phrase: !secrets.IsZero()}}
	if secrets.IsZero() {
		d.secrets = p.vault.Secrets(ctx)
	}
	began := time.Now()
	err := d.run(ctx)
	if ctx.Err() != nil {
		return DrillResult{}, context.Cause(ctx)
	}
	d.result.Time, d.result.Seconds = time.Now().UTC(), time.Since(began).Seconds()
	if d.result.OK = err == nil; d.result.OK {
		d.result.Passed = d.result.Time
	} else if last, ok := p.LastDrill(); ok {
		d.result.Passed = last.Passed
	}
	if err != nil {
		d.result.Problem = p.drillProblem(err)
	}
	return d.result, p.keepDrill(d.result)
}

// errNothingToDrill says that there is no snapshot yet.
var errNothingToDrill = errors.New("friends have no snapshot of this device yet")

// errLostPart says that what a snapshot needs is in no segment that friends have.
var errLostPart = errors.New("a part of it is lost: friends do not have the segment that holds it")

func (p *Peer) drillProblem(err error) string {
	var few *segments.TooFewError
	if errors.As(err, &few) {
		return tooFew(few, p.nameOf).What
	}
	var silent *segments.TooFewHeadHolders
	if errors.As(err, &silent) {
		return fmt.Sprintf("none of %s answered", count(silent.Asked, "other peer"))
	}
	return plainReason(err)
}

// drill is one run.
type drill struct {
	peer    *Peer
	files   int
	secrets seal.VaultSecrets
	result  DrillResult
	fetched fetchedSegments
}

func (d *drill) run(ctx context.Context) error {
	scratch, err := d.makeScratch()
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	v, err := d.openMirror(ctx, filepath.Join(scratch, "vault"))
	if err != nil {
		return err
	}
	if d.secrets.CanRead() { // the key of a write-only device is never written down
		ctx = vault.WithReadKey(ctx, d.secrets)
	}
	err = d.prove(ctx, v, scratch)
	if err == nil {
		err = d.countSites(ctx, v)
	}
	d.result.Segments = uint64(len(d.fetched.ids))
	return errors.Join(err, v.Close())
}

// makeScratch makes the scratch directory, and removes what a killed drill left.
func (d *drill) makeScratch() (string, error) {
	entries, err := os.ReadDir(d.peer.home.dir)
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), drillScratch) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(d.peer.home.dir, entry.Name())); err != nil {
			return "", err
		}
	}
	return os.MkdirTemp(d.peer.home.dir, drillScratch)
}

// openMirror makes a vault with an empty index from the heads that friends have.
func (d *drill) openMirror(ctx context.Context, dir string) (*vault.Vault, error) {
	p := d.peer
	self, _ := p.roster.View().Member(p.ID())
	found, err := p.segments.FindHeads(ctx, self.Owner)
	if err != nil {
		return nil, err
	}
	var links [][]byte
	for _, heads := range found {
		if heads.Vault == d.secrets.Vault() {
			links = heads.Links
		}
	}
	if len(links) == 0 {
		return nil, errNothingToDrill
	}
	newest, err := storage.ParseHead(links[len(links)-1])
	if err != nil {
		return nil, err
	}
	d.result.Head = newest.Seq
	if own := p.vault.Head(); own.Newer(newest) && !own.IsZero() {
		return nil, fmt.Errorf("friends have head %d as the newest, this device has %d: a new device would not find the last backups", newest.Seq, own.Seq)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := vault.Mirror(dir, d.secrets.WithoutRead(), links); err != nil {
		return nil, err
	}
	d.fetched.Segments = &vaultSegments{Segments: p.segments}
	return vault.Open(dir, vault.Config{Segments: &d.fetched, Owner: self.Owner, Logger: p.logger})
}

// prove restores files, or, without the read key, opens segments.
func (d *drill) prove(ctx context.Context, v *vault.Vault, scratch string) error {
	if !d.secrets.CanRead() {
		d.result.What = DrillSegments
		return d.proveSegments(ctx, v)
	}
	d.result.What = DrillFiles
	sample, err := snapshot.DrawSample(ctx, v, vault.Latest, d.files, rand.Uint64())
	if errors.Is(err, vault.ErrNoSnapshot) {
		return errNothingToDrill
	}
	if errors.Is(err, vault.ErrMissing) {
		return fmt.Errorf("%w: a directory of the newest snapshot cannot be listed; gotong check says what is hit", errLostPart)
	}
	if err != nil {
		return err
	}
	d.result.Snapshot = sample.Snapshot.ID.String()
	report, err := snapshot.RestoreSample(ctx, v, sample, scratch)
	d.result.Files, d.result.Bytes = report.Files, report.Bytes
	if err != nil || len(report.Failed) == 0 {
		return err
	}
	var failed []error
	for _, f := range report.Failed[:min(len(report.Failed), maxDrillNamed)] {
		why := f.Err
		if errors.Is(why, vault.ErrMissing) {
			why = errLostPart
		}
		failed = append(failed, fmt.Errorf("%s: %w", f.Path, why))
	}
	return fmt.Errorf("%d of %d files of snapshot %.8s did not come back: %w", len(report.Failed), len(sample.Files), d.result.Snapshot, errors.Join(failed...))
}

// proveSegments fetches segments drawn at random, each with the same chance.
func (d *drill) proveSegments(ctx context.Context, v *vault.Vault) error {
	var drawn []vault.SegmentInfo
	seen := 0
	for s, err := range v.Segments(ctx) {
		if err != nil {
			return err
		}
		seen++
		if len(drawn) < d.files {
			drawn = append(drawn, s)
		} else if i := rand.IntN(seen); i < d.files {
			drawn[i] = s
		}
	}
	if seen == 0 {
		return errNothingToDrill
	}
	for _, s := range drawn {
		n, err := v.ProvePack(ctx, s)
		if err != nil {
			return err
		}
		d.result.Bytes += uint64(n)
	}
	return nil
}

// countSites finds how many sites had to answer for what was fetched.
func (d *drill) countSites(ctx context.Context, v *vault.Vault) error {
	for s, err := range v.Segments(ctx) {
		if err != nil {
			return err
		}
		if d.fetched.ids[s.ID] {
			d.result.SitesNeeded = max(d.result.SitesNeeded, s.Redundancy.K)
		}
	}
	return nil
}

// fetchedSegments reads segments and remembers which.
type fetchedSegments struct {
	vault.Segments

	mu  sync.Mutex
	ids map[storage.SegmentID]bool
}

// Get implements vault.Segments.
func (s *fetchedSegments) Get(ctx context.Context, id storage.SegmentID, holders []storage.Holder, buffer []byte) ([]byte, error) {
	s.note(id)
	return s.Segments.Get(ctx, id, holders, buffer)
}

// Range implements vault.Segments.
func (s *fetchedSegments) Range(ctx context.Context, id storage.SegmentID, holders []storage.Holder, off, n int64) ([]byte, error) {
	s.note(id)
	return s.Segments.Range(ctx, id, holders, off, n)
}

func (s *fetchedSegments) note(id storage.SegmentID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil {
		s.ids = map[storage.SegmentID]bool{}
	}
	s.ids[id] = true
}
