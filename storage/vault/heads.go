package vault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/seal"
)

const (
	headStateVersion = 1
	purposeHead      = "head"
	// keptHeads is how many links stay on this disk: what one holder is told at
	// most, so that a holder that missed some can be given all it lacks.
	keptHeads = storage.MaxHeadLinks
)

// headChain is the newest links of the vault's heads on this disk, one file
// each, named by its number.
type headChain struct {
	dir   string
	files files
	links []storage.SignedHead // oldest first

	// What of the chain this disk lost: the number of the newest link that
	// cannot be read, and whether the whole directory went away.
	lost    uint64
	missing bool
}

// badSuffix marks a link that could not be read and was set aside.
const badSuffix = ".bad"

func headName(seq uint64) string { return fmt.Sprintf("%016x", seq) }

// openHeads reads the chain. A link that cannot be read is set aside; links
// that do not follow each other end the chain: the newest stand.
func openHeads(dir string, vault storage.VaultID, files files) (*headChain, error) {
	c := &headChain{dir: dir, files: files}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		c.missing = true
		return c, nil
	} else if err != nil {
		return nil, fmt.Errorf("heads: %w", err)
	}
	slices.Reverse(entries)
	for _, entry := range entries {
		number, bad := strings.CutSuffix(entry.Name(), badSuffix)
		if len(number) != len(headName(0)) {
			continue // not a link
		}
		head, err := readHead(filepath.Join(dir, entry.Name()))
		switch {
		case bad || err == nil && (head.Vault != vault || number != headName(head.Seq)):
			err = storage.ErrCorrupt
		case err != nil && !errors.Is(err, storage.ErrCorrupt):
			return nil, err
		}
		if err != nil {
			if err := c.setAside(number, bad); err != nil {
				return nil, err
			}
			continue
		}
		if len(c.links) == keptHeads || len(c.links) > 0 && !c.links[len(c.links)-1].Follows(head) {
			break
		}
		c.links = append(c.links, head)
	}
	slices.Reverse(c.links)
	return c, nil
}

// setAside notes that a link is lost and renames its file once.
func (c *headChain) setAside(name string, done bool) error {
	number, err := strconv.ParseUint(name, 16, 64)
	if err != nil {
		return nil //nolint:nilerr // no file of this chain
	}
	c.lost = max(c.lost, number)
	if done {
		return nil
	}
	path := filepath.Join(c.dir, name)
	if err := os.Rename(path, path+badSuffix); err != nil {
		return fmt.Errorf("set head aside: %w", err)
	}
	return nil
}

// damaged reports whether this disk lost the newest links.
func (c *headChain) damaged() bool { return c.missing || c.lost > c.newest().Seq }

func readHead(path string) (storage.SignedHead, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return storage.SignedHead{}, fmt.Errorf("head: %w", err)
	}
	head, err := storage.ParseKnownHead(raw)
	if err != nil {
		return storage.SignedHead{}, fmt.Errorf("%s: %w", path, err)
	}
	return head, nil
}

// newest returns the last link; the zero value when there is none.
func (c *headChain) newest() storage.SignedHead {
	if len(c.links) == 0 {
		return storage.SignedHead{}
	}
	return c.links[len(c.links)-1]
}

// append makes head the newest link. It is durable when the error is nil.
func (c *headChain) append(head storage.SignedHead) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return fmt.Errorf("write head %d: %w", head.Seq, err)
	}
	if err := c.files.writeDurable(filepath.Join(c.dir, headName(head.Seq)), head.Raw); err != nil {
		return fmt.Errorf("write head %d: %w", head.Seq, err)
	}
	if n := len(c.links); n > 0 && !head.Follows(c.links[n-1]) {
		c.links = nil // there is a gap; holders have what is older
	}
	c.links = append(c.links, head)
	c.missing = false
	for len(c.links) > keptHeads {
		old := filepath.Join(c.dir, headName(c.links[0].Seq))
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove old head: %w", err)
		}
		c.links = c.links[1:]
	}
	return nil
}

// raw returns the bytes of all links, oldest first, as many as one PutHeads takes.
func (c *headChain) raw() [][]byte {
	var out [][]byte
	total := 0
	for _, link := range slices.Backward(c.links) {
		if total += len(link.Raw); total > storage.MaxPutHeadBytes {
			break
		}
		out = append(out, link.Raw)
	}
	slices.Reverse(out)
	return out
}

// sealHeadState returns what a head holds for those with the index key.
func sealHeadState(secrets seal.VaultSecrets, state *vaultv1.HeadState) ([]byte, error) {
	state.Version = headStateVersion
	plain, err := proto.MarshalOptions{Deterministic: true}.Marshal(state)
	if err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	return secrets.SealIndexed(nil, purposeHead, padPlain(plain, seal.Overhead)), nil
}

// openHeadState undoes sealHeadState. The error is storage.ErrCorrupt.
func openHeadState(secrets seal.VaultSecrets, sealed []byte) (*vaultv1.HeadState, error) {
	padded, err := secrets.OpenIndexed(nil, purposeHead, sealed)
	if err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	plain, err := unpadPlain(padded)
	if err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	return parseHeadState(plain)
}

func parseHeadState(plain []byte) (*vaultv1.HeadState, error) {
	var state vaultv1.HeadState
	if err := proto.Unmarshal(plain, &state); err != nil {
		return nil, fmt.Errorf("%w: head: %w", storage.ErrCorrupt, err)
	}
	if state.Version != headStateVersion || len(state.Parts) > maxParts || state.NextNumber > maxSegments {
		return nil, fmt.Errorf("%w: head of version %d with %d parts", storage.ErrCorrupt, state.Version, len(state.Parts))
	}
	for _, part := range state.Parts {
		if len(part.GetSegment()) != 32 || part.GetBytes() > storage.MaxSegmentBytes {
			return nil, fmt.Errorf("%w: head: part of the catalogue", storage.ErrCorrupt)
		}
		if _, err := storage.ParseHolders(part.GetHolders()); err != nil {
			return nil, fmt.Errorf("head: %w", err)
		}
	}
	return &state, nil
}
