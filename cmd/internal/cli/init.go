package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"gotong/cmd/internal/config"
	"gotong/grid/node"
)

func (a *app) initCommand() *cobra.Command {
	var gridName, phraseFile string
	var writeOnly bool
	c := &cobra.Command{
		Use:   "init",
		Short: "Found a new grid with this machine as its first peer",
		Long: `Init founds a grid in an empty home. Its owner is you, an admin for good: the
recovery phrase is shown once and not stored, so write it on paper. With
--write-only malware or a thief on this machine can neither read old backups nor
delete any, nor remove members; reading then asks for the phrase, and space is
given back only after another device took the vault over. A second machine of
yours and a friend's join with gotong invite and gotong join.`,
		Example: `  gotong init --name attic --give 200GB
  gotong init --phrase-file phrase.txt      # you are an owner already`,
		Args: exactArgs(0),
	}
	addPeerFlags(c)
	c.Flags().StringVar(&gridName, "grid", "", "name of the new grid (default after this peer)")
	c.Flags().StringVar(&phraseFile, "phrase-file", "", "file with the recovery phrase of an existing owner, - for standard input (default a new owner)")
	c.Flags().BoolVar(&writeOnly, "write-only", false, writeOnlyUsage)
	c.RunE = func(c *cobra.Command, _ []string) error {
		settings, err := a.setUpConfig(c)
		if err != nil {
			return err
		}
		phrase, err := a.readPhraseFile(phraseFile)
		if err != nil {
			return err
		}
		made, err := node.Init(c.Context(), a.home, node.InitParams{Config: settings, Save: config.Save, GridName: gridName, Phrase: phrase, WriteOnly: writeOnly})
		if err != nil {
			return err
		}
		return a.printMade(made, settings)
	}
	return c
}

// printMade tells what init or join made. The phrase is shown here and never
// again.
func (a *app) printMade(made node.Made, settings node.Config) error {
	if a.json {
		return a.printJSON(struct {
			Peer   string `json:"peer"`
			Owner  string `json:"owner"`
			Grid   string `json:"grid"`
			Phrase string `json:"recovery_phrase"`
		}{made.Peer.String(), made.Owner.String(), made.Grid.String(), made.Phrase})
	}
	fmt.Fprintf(a.stdout, "Peer   %s (%s)\nOwner  %s\nGrid   %s (%s)\nHome   %s\n", made.Peer, printable(settings.Name), made.Owner, made.Grid, printable(made.GridName), a.home)
	fmt.Fprintf(a.stdout, "Gives  %s of disk and %s; listens on %s\n", settings.Give, countText(uint64(settings.Slots), "task slot (WASM only)", "task slots (WASM only)"), settings.Listen)
	if made.NewOwner {
		fmt.Fprint(a.stdout, "\nYour recovery phrase. Write it on paper now: it is shown once and stored nowhere.\nWith it and one friend you get everything back; without it, a lost machine is lost data.\n\n")
		printPhrase(a.stdout, made.Phrase)
	}
	fmt.Fprint(a.stdout, "\nNext: gotong up\n")
	return nil
}
