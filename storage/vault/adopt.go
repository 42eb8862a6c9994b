package vault

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gotong/grid"
	"gotong/grid/disk"
	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/seal"
	"gotong/storage/segments"
)

// Reading is what Describe asks of the layer below.
type Reading interface {
	Get(ctx context.Context, id storage.SegmentID, holders []storage.Holder, buffer []byte) ([]byte, error)
}

// State is what one head of a vault says.
type State struct {
	Head      storage.SignedHead
	Snapshots []Snapshot // oldest first; as far as they can be opened
	Unopened  int        // snapshots whose record could not be opened
}

// Describe reads the catalogue of one head, without any index, and opens its
// snapshots. Errors: storage.ErrCorrupt when the head says nothing that these
// secrets open, storage.ErrTooFewShards when its catalogue cannot be had now.
func Describe(ctx context.Context, reading Reading, secrets seal.VaultSecrets, head storage.SignedHead) (State, error) {
	state, err := openHeadState(secrets, head.Sealed)
	if err != nil {
		return State{}, err
	}
	numbers := map[uint32]storage.SegmentID{}
	var entries []*vaultv1.SnapshotEntry
	var forgotten [][]byte
	for i, ref := range state.Parts {
		part, err := readPartOf(ctx, reading, secrets, ref)
		if err != nil {
			return State{}, fmt.Errorf("catalogue part %d of %d: %w", i+1, len(state.Parts), err)
		}
		for _, s := range part.Segments {
			id := storage.SegmentID(s.Id)
			if other, used := numbers[s.Number]; s.Number >= state.NextNumber || used && other != id {
				return State{}, fmt.Errorf("%w: catalogue part %d has segment %d of %d twice or too high", storage.ErrCorrupt, i+1, s.Number, state.NextNumber)
			}
			numbers[s.Number] = id
		}
		entries = append(entries, part.Snapshots...)
		forgotten = append(forgotten, part.Forgotten...)
	}
	out := State{Head: head}
	for _, e := range entries {
		id := snapshotIDOf(e.Record)
		if slices.ContainsFunc(forgotten, func(f []byte) bool { return bytes.Equal(f, id[:]) }) {
			continue
		}
		plain, err := secrets.OpenRecord(e.Record)
		if err != nil {
			out.Unopened++
			continue
		}
		s, err := parseSnapshot(plain)
		if err != nil {
			out.Unopened++
			continue
		}
		s.ID = id
		out.Snapshots = append(out.Snapshots, s)
	}
	return out, nil
}

func readPartOf(ctx context.Context, reading Reading, secrets seal.VaultSecrets, ref *vaultv1.PartRef) (*vaultv1.CataloguePart, error) {
	holders, err := storage.ParseHolders(ref.Holders)
	if err != nil {
		return nil, err
	}
	sealed, err := reading.Get(ctx, storage.SegmentID(ref.Segment), holders, nil)
	if err != nil {
		return nil, err
	}
	plain, err := openPart(secrets, sealed)
	if err != nil {
		return nil, err
	}
	return parsePart(plain)
}

// TakeOver says who continues a vault, and from where.
type TakeOver struct {
	Node  ed25519.PrivateKey
	Owner grid.OwnerID
	Grant []byte        // of an epoch above that of every known head
	Floor time.Duration // as in Config
	// Links are the newest heads of the vault, oldest first, as holders gave them.
	Links [][]byte
	// State is the head whose state the vault has from now on; zero: the newest.
	State storage.SignedHead
}

// Adopt makes in dir, which must hold no vault, the vault that another device
// wrote until now: its secrets, the newest of its heads, and one head more that
// this device signs under its own, newer delegation. Once that one is published
// holders take no more heads of the other device. Its state is that of the head
// before, or of an older one. Everything is durable when the error is nil.
func Adopt(dir string, secrets seal.VaultSecrets, t TakeOver) error {
	links, state, err := t.open(secrets)
	if err != nil {
		return fmt.Errorf("adopt vault: %w", err)
	}
	// Whoever had the device may have written any number, after which none is left.
	state.Deletions = min(state.Deletions, maxAdoptedDeletion)
	newest := links[len(links)-1]
	sealed, err := sealHeadState(secrets, state)
	if err != nil {
		return fmt.Errorf("adopt vault: %w", err)
	}
	head, err := storage.SignHead(t.Node, storage.Head{
		Vault: secrets.Vault(), Owner: t.Owner, Seq: newest.Seq + 1, Prev: newest.ID,
		Created: time.Now(), Floor: t.Floor, Grant: t.Grant, Sealed: sealed,
	})
	if err != nil {
		return fmt.Errorf("adopt vault: %w", err)
	}
	if head.Epoch <= newest.Epoch {
		return fmt.Errorf("adopt vault: delegation of epoch %d, its heads have %d: %w", head.Epoch, newest.Epoch, storage.ErrStaleEpoch)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("adopt vault: %w", err)
	}
	for _, name := range []string{adoptedName, rescueName, renewName} {
		if err := (diskFiles{}).writeDurable(filepath.Join(dir, name), nil); err != nil {
			return fmt.Errorf("adopt vault: %w", err)
		}
	}
	return writeVault(dir, secrets, append(links, head))
}

// maxAdoptedDeletion is more batches of deletions than any vault ever made.
const maxAdoptedDeletion = 1 << 32

// adoptedName is the file that says that the vault was taken over and nobody
// has asked yet what of it was deleted.
const adoptedName = "adopted"

// adoptedAtOnce is how many segments are asked about together.
const adoptedAtOnce = 4096

// surveyAdopted asks the members, once after a vault was taken over, what of it
// was deleted: whoever had the other device may have done that. Such segments
// can be read until their floor has passed, so what is new must not lean on them.
func (v *Vault) surveyAdopted(ctx context.Context) error {
	path := filepath.Join(v.dir, adoptedName)
	if _, err := os.Stat(path); err != nil {
		return nil //nolint:nilerr // not adopted, or asked already
	}
	var batch []SegmentInfo
	lost := 0
	ask := func() error {
		asks := make([]segments.Ask, len(batch))
		for i, s := range batch {
			asks[i] = segments.Ask{ID: s.ID, N: s.Redundancy.N, Holders: s.Holders}
		}
		answers, err := v.segments.Survey(ctx, asks)
		if err != nil {
			return err
		}
		var observed []Observation
		for i, a := range answers {
			if s := batch[i]; a.Deleted || inTrash(&a) {
				observed = append(observed, Observation{ID: s.ID, Holders: s.Holders, Committed: s.Committed, Complete: s.Complete, Lost: true, SurvivesSites: s.SurvivesSites})
			}
		}
		lost += len(observed)
		batch = batch[:0]
		return v.Observe(ctx, observed)
	}
	for s, err := range v.everySegment(ctx) {
		if err != nil {
			return err
		}
		if batch = append(batch, s); len(batch) == adoptedAtOnce {
			if err := ask(); err != nil {
				return err
			}
		}
	}
	if len(batch) > 0 {
		if err := ask(); err != nil {
			return err
		}
	}
	if lost > 0 {
		v.log.Warn("segments of the vault that was taken over were deleted; what they hold is stored anew", "segments", lost)
	}
	return disk.Remove(path)
}

// inTrash reports whether somebody says to have a shard in its trash.
func inTrash(s *segments.Survey) bool {
	return slices.ContainsFunc(s.Shards, func(copies []segments.Copy) bool {
		return slices.ContainsFunc(copies, func(c segments.Copy) bool { return c.State == storage.ShardTrash })
	})
}

// everySegment yields the segments of the catalogue and all others that the
// index knows, those too that no snapshot needs: what is new may lean on them.
func (v *Vault) everySegment(ctx context.Context) iter.Seq2[SegmentInfo, error] {
	return func(yield func(SegmentInfo, error) bool) {
		if !v.yieldParts(yield) {
			return
		}
		err := v.index.eachSegmentInBatches(ctx, 0, func(row segmentRow) bool { return yield(row.info(), nil) })
		if err != nil {
			yield(SegmentInfo{}, err)
		}
	}
}

// Mirror makes in dir, which must hold no vault, a copy of a vault to read from,
// at its newest head. It is not for writing: a drill reads from it and throws it
// away.
func Mirror(dir string, secrets seal.VaultSecrets, links [][]byte) error {
	heads, err := lastLinks(links, secrets.Vault())
	if err != nil {
		return fmt.Errorf("mirror vault: %w", err)
	}
	return writeVault(dir, secrets, heads)
}

// open verifies the links and returns those that lead without a gap to the
// newest, and the state to go on with.
func (t TakeOver) open(secrets seal.VaultSecrets) ([]storage.SignedHead, *vaultv1.HeadState, error) {
	links, err := lastLinks(t.Links, secrets.Vault())
	if err != nil {
		return nil, nil, err
	}
	from := links[len(links)-1]
	if !t.State.IsZero() {
		from = t.State
	}
	if from.Vault != secrets.Vault() || from.Owner != t.Owner {
		return nil, nil, fmt.Errorf("%w: state of another vault", storage.ErrCorrupt)
	}
	state, err := openHeadState(secrets, from.Sealed)
	if err != nil {
		return nil, nil, err
	}
	return links, state, nil
}

// lastLinks verifies raw heads of a vault and returns those that lead without a
// gap to the newest.
func lastLinks(raw [][]byte, vault storage.VaultID) ([]storage.SignedHead, error) {
	var out []storage.SignedHead
	for _, b := range slices.Backward(raw) {
		head, err := storage.ParseHead(b)
		if err != nil {
			return nil, err
		}
		if head.Vault != vault {
			return nil, fmt.Errorf("%w: head of another vault", storage.ErrCorrupt)
		}
		if len(out) == keptHeads-1 || len(out) > 0 && !out[len(out)-1].Follows(head) {
			break
		}
		out = append(out, head)
	}
	if len(out) == 0 {
		return nil, errors.New("no head of it was found")
	}
	slices.Reverse(out)
	return out, nil
}

// writeVault makes a vault with heads. The secrets, without which there is no
// vault, come last.
func writeVault(dir string, secrets seal.VaultSecrets, heads []storage.SignedHead) error {
	if _, err := os.Stat(filepath.Join(dir, secretsName)); err == nil {
		return fmt.Errorf("%w: %s", ErrExists, dir)
	}
	chain := &headChain{dir: filepath.Join(dir, headsName), files: diskFiles{}}
	for _, head := range heads {
		if err := chain.append(head); err != nil {
			return fmt.Errorf("adopt vault: %w", err)
		}
	}
	return create(dir, secrets, diskFiles{})
}

// Readable returns the newest head of this vault that says something and whose
// catalogue friends still have, by what they say. sure is false when a newer one
// may be readable after all, once members answer that did not now. The zero value
// means that there is none.
func (v *Vault) Readable(ctx context.Context) (head storage.SignedHead, sure bool, err error) {
	h, err := v.history(ctx)
	if err != nil {
		return storage.SignedHead{}, false, err
	}
	parts := map[storage.SegmentID]*pastPart{}
	for i := range h.parts {
		parts[storage.SegmentID(h.parts[i].ref.Segment)] = &h.parts[i]
	}
	sure = true
	for _, past := range h.heads {
		gone, surely := false, false
		for _, ref := range past.parts {
			if part := parts[storage.SegmentID(ref.Segment)]; part.gone {
				gone, surely = true, surely || part.sure
			}
		}
		if !gone {
			return past.head, sure, nil
		}
		sure = sure && surely
	}
	return storage.SignedHead{}, false, nil
}

// ProvePack fetches a segment whole and opens what its packing says of it, for
// which no read key is needed: the table of contents of a pack, or a part of the
// catalogue. It returns the bytes of the segment. Errors are those of the fetch,
// or storage.ErrCorrupt.
func (v *Vault) ProvePack(ctx context.Context, s SegmentInfo) (int, error) {
	data, err := v.segments.Get(ctx, s.ID, s.Holders, nil)
	if err != nil {
		return 0, err
	}
	if _, err = readTOC(v.secrets, data); err != nil {
		if _, part := openPart(v.secrets, data); part != nil {
			return 0, fmt.Errorf("segment %s: %w", s.ID.Short(), err)
		}
	}
	return len(data), nil
}

// Secrets returns the secrets with which a call reads: those of the device, with
// the read key that came with the call when it has none.
func (v *Vault) Secrets(ctx context.Context) seal.VaultSecrets { return v.readSecrets(ctx) }
