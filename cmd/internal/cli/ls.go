package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) lsCommand() *cobra.Command {
	var recursive bool
	c := &cobra.Command{
		Use:   "ls SNAPSHOT[:PATH] [PATH]",
		Short: "List the files of a snapshot",
		Long: `Ls lists a directory of a snapshot, or one entry. In every command SNAPSHOT is an
id, its first digits, latest, or latest@SET for the newest of a backup set.`,
		Example: "  gotong ls latest\n  gotong ls -r latest:/home/me/photos --json\n  gotong ls latest@photos",
		Args: func(c *cobra.Command, args []string) error {
			return firstError(minimumArgs(1)(c, args), maximumArgs(2)(c, args))
		},
	}
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "list what is below directories too")
	c.RunE = func(c *cobra.Command, args []string) error {
		snapshot, path := snapshotAndPath(args)
		request := &controlv1.LsRequest{Snapshot: snapshot, Path: path, Recursive: recursive}
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			stream, err := peer.Ls(ctx, request)
			if err != nil {
				return err
			}
			return each(stream, a.printEntry)
		})
	}
	return c
}

// snapshotAndPath splits SNAPSHOT[:PATH] [PATH].
func snapshotAndPath(args []string) (snapshot string, path []byte) {
	name, at, _ := strings.Cut(args[0], ":")
	if len(args) == 2 {
		at = args[1]
	}
	return name, []byte(at)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printEntry(e *controlv1.LsEntry) error { return a.printEntryOf(e, "") }

// entryJSON is one entry of a snapshot as scripts read it.
type entryJSON struct {
	Path       string    `json:"path"`
	PathBase64 []byte    `json:"path_base64,omitempty"` // when it is not UTF-8, of which path has only what is
	Type       string    `json:"type"`
	Mode       string    `json:"mode"`
	Size       uint64    `json:"size"`
	MTime      time.Time `json:"mtime"`
	UID        uint32    `json:"uid"`
	GID        uint32    `json:"gid"`
	Link       string    `json:"link,omitempty"`
	LinkBase64 []byte    `json:"link_base64,omitempty"` // likewise
	Snapshot   string    `json:"snapshot,omitempty"`
}

// notText returns bytes that JSON cannot hold as text, else nil.
func notText(b []byte) []byte {
	if utf8.Valid(b) {
		return nil
	}
	return b
}

func newEntryJSON(e *controlv1.LsEntry, snapshot string) *entryJSON {
	return &entryJSON{string(e.Path), notText(e.Path), e.Type, fmt.Sprintf("%04o", e.Mode), e.Size, jsonTime(e), e.Uid, e.Gid,
		string(e.LinkTarget), notText(e.LinkTarget), snapshot}
}

func timeOf(e *controlv1.LsEntry) time.Time { return time.Unix(e.Mtime, int64(e.MtimeNanos)) }

// jsonTime is the time of an entry, or the nearest that JSON has a form for.
func jsonTime(e *controlv1.LsEntry) time.Time {
	t := timeOf(e).UTC()
	switch {
	case t.Year() < 0:
		return time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	case t.Year() > 9999:
		return time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)
	}
	return t
}

// printEntryOf prints an entry of a snapshot, which may be left unnamed.
func (a *app) printEntryOf(e *controlv1.LsEntry, snapshot string) error {
	if a.json {
		return a.printJSON(newEntryJSON(e, snapshot))
	}
	name := printable(string(e.Path))
	if len(e.LinkTarget) > 0 {
		name += " -> " + printable(string(e.LinkTarget))
	}
	_, err := fmt.Fprintf(a.stdout, "%s%s %10d %s %s\n", typeLetter(e.Type), permissions(e.Mode), e.Size, timeOf(e).Format(time.DateTime), name)
	return err
}

// permissions writes mode bits as ls does, with s and t for set-id and sticky.
func permissions(mode uint32) string {
	text := []byte(os.FileMode(mode & 0o777).String()[1:])
	for _, special := range []struct {
		bit  uint32
		at   int
		mark byte
	}{{0o4000, 2, 's'}, {0o2000, 5, 's'}, {0o1000, 8, 't'}} {
		switch {
		case mode&special.bit == 0:
		case text[special.at] == 'x':
			text[special.at] = special.mark
		default:
			text[special.at] = special.mark - 'a' + 'A'
		}
	}
	return string(text)
}

func typeLetter(kind string) string {
	switch kind {
	case "dir":
		return "d"
	case "symlink":
		return "l"
	case "fifo":
		return "p"
	case "socket":
		return "s"
	case "chardev":
		return "c"
	case "blockdev":
		return "b"
	}
	return "-"
}
