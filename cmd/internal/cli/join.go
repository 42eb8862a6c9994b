package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"gotong/cmd/internal/config"
	"gotong/grid/node"
)

func (a *app) joinCommand() *cobra.Command {
	var phraseFile string
	var writeOnly bool
	c := &cobra.Command{
		Use:   "join CODE",
		Short: "Join a friend's grid with the code that gotong invite printed",
		Long: `Join makes a peer in an empty home and is admitted by the friend's peer, which
must be running. Without --phrase-file you become a new owner and see your
recovery phrase once; with it this machine becomes another device of the owner
of that phrase. CODE may be - to read it from standard input.`,
		Example: `  gotong join gotong1aebag…  --name cellar --give 100GB
  pbpaste | gotong join -
  gotong join gotong1aebag… --phrase-file phrase.txt`,
		Args: exactArgs(1),
	}
	addPeerFlags(c)
	c.Flags().StringVar(&phraseFile, "phrase-file", "", "file with your recovery phrase, - for standard input")
	c.Flags().BoolVar(&writeOnly, "write-only", false, writeOnlyUsage)
	c.RunE = func(c *cobra.Command, args []string) error {
		code := args[0]
		if code == "-" && phraseFile == "-" {
			return usageError(c, errors.New("the code and the phrase cannot both come from standard input"))
		}
		if code == "-" {
			var err error
			if code, err = a.readSmall("-"); err != nil {
				return err
			}
		}
		settings, err := a.setUpConfig(c)
		if err != nil {
			return err
		}
		phrase, err := a.readPhraseFile(phraseFile)
		if err != nil {
			return err
		}
		made, err := node.Join(c.Context(), a.home, node.JoinParams{Config: settings, Save: config.Save, Code: code, Phrase: phrase, WriteOnly: writeOnly})
		if err != nil {
			return err
		}
		return a.printMade(made, settings)
	}
	return c
}
