package snapshot

import (
	"context"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/vault"
)

// TreeStats counts what is in a tree.
type TreeStats struct {
	Files, Directories, Symlinks, Specials uint64
	Bytes                                  uint64 // of files; one with several names counts once
	HardLinks                              uint64 // further names of files
	SparseFiles                            uint64
	HoleBytes                              uint64 // of Bytes, not stored
	LargestFile                            Entry
}

// Stats counts what is at SNAPSHOT[:PATH]. Errors: ErrNoPath, those of the
// vault.
func Stats(ctx context.Context, v *vault.Vault, text string) (TreeStats, error) {
	name, at := SplitName(text)
	t, err := openTree(ctx, v, name)
	if err != nil {
		return TreeStats{}, err
	}
	defer t.reader.Close()
	node, full, err := t.find(at)
	if err != nil {
		return TreeStats{}, err
	}
	var s TreeStats
	links := map[linkKey]uint64{} // names to come; bounded by files with names to come
	count := func(at string, n *vaultv1.Node) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch n.Type {
		case vaultv1.Node_DIRECTORY:
			s.Directories++
		case vaultv1.Node_SYMLINK:
			s.Symlinks++
		case vaultv1.Node_FILE:
			s.addFile(at, n, links)
		default:
			s.Specials++
		}
		return nil
	}
	if node.Type != vaultv1.Node_DIRECTORY {
		err = count(full, node)
	} else {
		err = walkNodes(t.reader, node, full, count)
	}
	return s, err
}

func (s *TreeStats) addFile(at string, n *vaultv1.Node, links map[linkKey]uint64) {
	if n.Link != nil {
		key := keyOf(n.Link)
		if left, met := links[key]; met {
			s.HardLinks++
			if left--; left == 0 {
				delete(links, key)
			} else {
				links[key] = left
			}
			return
		}
		if n.Link.Names > 1 {
			links[key] = n.Link.Names - 1
		}
	}
	s.Files++
	s.Bytes += n.Size
	if n.Sparse {
		s.SparseFiles++
		s.HoleBytes += n.Size - n.Content.GetSize()
	}
	if n.Size >= s.LargestFile.Size {
		s.LargestFile = entryOf(at, n)
	}
}
