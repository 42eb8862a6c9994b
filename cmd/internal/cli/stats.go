package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) statsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "stats [SNAPSHOT[:PATH]]",
		Short: "Count what the vault holds, or what is in a snapshot",
		Long: `Stats says how much the vault holds and what it takes on friends' disks, from this
machine's index; nobody is asked. With SNAPSHOT it counts what is in that.

With --each it also says what each snapshot alone needs: what forgetting it and a
prune would free. That reads the listings of all snapshots, from friends too.`,
		Example: "  gotong stats\n  gotong stats --each\n  gotong stats latest:/home/me --json",
		Args:    maximumArgs(1),
	}
	each := c.Flags().Bool("each", false, "also what each snapshot alone needs: what forgetting it would free")
	c.RunE = func(c *cobra.Command, args []string) error {
		request := &controlv1.StatsRequest{Each: *each}
		if len(args) == 1 {
			if *each {
				return usageError(c, errors.New("--each is of all snapshots: leave out "+args[0]))
			}
			request.Snapshot = args[0]
		}
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			ctx, cancel := context.WithTimeout(ctx, forgetTimeout)
			defer cancel()
			answer, err := peer.Stats(ctx, request)
			if err != nil {
				return err
			}
			if answer.Tree != nil {
				return a.printTreeStats(answer.Tree)
			}
			return a.printVaultStats(answer.Vault)
		})
	}
	return c
}

func ratio(a, b uint64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// timesText says how many times more a is than b, when it is.
func timesText(format string, a, b uint64) string {
	if a <= b || b == 0 {
		return ""
	}
	return fmt.Sprintf(format, ratio(a, b))
}

// aloneJSON is what one snapshot alone needs.
type aloneJSON struct {
	ID          string    `json:"id"`
	Time        time.Time `json:"time"`
	UniqueBytes uint64    `json:"unique_bytes"`        // compressed and sealed
	StoredBytes uint64    `json:"unique_stored_bytes"` // of those, with redundancy
}

func (a *app) printVaultStats(s *controlv1.VaultStats) error {
	if a.json {
		var each []aloneJSON
		for _, alone := range s.Each {
			each = append(each, aloneJSON{alone.Id, time.Unix(0, alone.TimeUnixNano).UTC(), alone.SealedBytes, alone.StoredBytes})
		}
		return a.printJSON(struct {
			Snapshots     uint64  `json:"snapshots"`
			LogicalBytes  uint64  `json:"logical_bytes"`
			Blobs         uint64  `json:"blobs"`
			UniqueBytes   uint64  `json:"unique_bytes"`
			SealedBytes   uint64  `json:"sealed_bytes"`
			Segments      uint64  `json:"segments"`
			SegmentBytes  uint64  `json:"segment_bytes"`
			StoredBytes   uint64  `json:"stored_bytes"`
			WasteBytes    uint64  `json:"waste_bytes"`
			IndexBytes    uint64  `json:"index_bytes"`
			IndexPerBlob  float64 `json:"index_bytes_per_blob"`
			Deduplication float64 `json:"deduplication"`
			Compression   float64 `json:"compression"`
			Waiting       uint64  `json:"deletions_waiting"`

			Each []aloneJSON `json:"each,omitempty"`
		}{s.Snapshots, s.LogicalBytes, s.Blobs, s.UniqueBytes, s.SealedBytes, s.Segments, s.SegmentBytes, s.StoredBytes, s.WasteBytes,
			s.IndexBytes, ratio(s.IndexBytes, s.Blobs), ratio(s.LogicalBytes, s.UniqueBytes), ratio(s.UniqueBytes, s.SealedBytes), s.Waiting, each})
	}
	err := a.table("WHAT\tHOW MUCH", func(w io.Writer) {
		fmt.Fprintf(w, "snapshots\t%s\n", humanize.Comma(int64(s.Snapshots)))
		if s.LogicalBytes > 0 {
			fmt.Fprintf(w, "files of all snapshots\t%s\n", bytesText(s.LogicalBytes))
		}
		fmt.Fprintf(w, "unique data\t%s in %s%s\n", bytesText(s.UniqueBytes), countText(s.Blobs, "blob", "blobs"), timesText(", 1 : %.1f by deduplication", s.LogicalBytes, s.UniqueBytes))
		fmt.Fprintf(w, "compressed and sealed\t%s%s\n", bytesText(s.SealedBytes), timesText(", 1 : %.1f by compression", s.UniqueBytes, s.SealedBytes))
		fmt.Fprintf(w, "in segments\t%s in %s, %s of it of no use\n", bytesText(s.SegmentBytes), countText(s.Segments, "segment", "segments"), bytesText(s.WasteBytes))
		fmt.Fprintf(w, "on friends' disks\t%s with redundancy\n", bytesText(s.StoredBytes))
		fmt.Fprintf(w, "index on this disk\t%s\n", bytesText(s.IndexBytes))
		if s.Waiting > 0 {
			fmt.Fprintf(w, "deletions under way\t%s that not all friends know of yet\n", countText(s.Waiting, "batch", "batches"))
		}
	})
	if err != nil || len(s.Each) == 0 {
		return err
	}
	fmt.Fprintln(a.stdout)
	return a.table("SNAPSHOT\tTIME\tUNIQUE\tON FRIENDS' DISKS", func(w io.Writer) {
		for _, alone := range s.Each {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", short(alone.Id), time.Unix(0, alone.TimeUnixNano).Format(time.DateTime), bytesText(alone.SealedBytes), bytesText(alone.StoredBytes))
		}
	})
}

func (a *app) printTreeStats(s *controlv1.TreeStats) error {
	if a.json {
		var largest *entryJSON
		if s.Largest != nil {
			largest = newEntryJSON(s.Largest, "")
		}
		return a.printJSON(struct {
			Files       uint64     `json:"files"`
			Dirs        uint64     `json:"dirs"`
			Symlinks    uint64     `json:"symlinks"`
			Specials    uint64     `json:"specials"`
			Bytes       uint64     `json:"bytes"`
			HardLinks   uint64     `json:"hard_links"`
			SparseFiles uint64     `json:"sparse_files"`
			HoleBytes   uint64     `json:"hole_bytes"`
			Largest     *entryJSON `json:"largest,omitempty"`
		}{s.Files, s.Dirs, s.Symlinks, s.Specials, s.Bytes, s.HardLinks, s.SparseFiles, s.HoleBytes, largest})
	}
	return a.table("WHAT\tHOW MUCH", func(w io.Writer) {
		fmt.Fprintf(w, "files\t%s, %s\n", humanize.Comma(int64(s.Files)), bytesText(s.Bytes))
		fmt.Fprintf(w, "directories\t%s\n", humanize.Comma(int64(s.Dirs)))
		for _, row := range []struct {
			what string
			n    uint64
		}{{"symbolic links", s.Symlinks}, {"further names of files", s.HardLinks}, {"pipes and devices", s.Specials}} {
			if row.n > 0 {
				fmt.Fprintf(w, "%s\t%s\n", row.what, humanize.Comma(int64(row.n)))
			}
		}
		if s.SparseFiles > 0 {
			fmt.Fprintf(w, "files with holes\t%s, holes %s\n", humanize.Comma(int64(s.SparseFiles)), bytesText(s.HoleBytes))
		}
		if s.Largest != nil {
			fmt.Fprintf(w, "largest file\t%s, %s\n", printable(string(s.Largest.Path)), bytesText(s.Largest.Size))
		}
	})
}
