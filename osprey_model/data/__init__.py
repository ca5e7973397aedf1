"""Training data: annotation files -> samples -> batches.

In reading order:

json_index.py    byte ranges of the entries of a large JSON file
entries.py       annotation files as sequences of entries
llava.py         entry -> record, for LLaVA's files (stage 1)
coco_format.py   entry -> record, for files in COCO format (stage 2, and Visual Genome)
osprey_724k.py   entry -> record, for the five files of Osprey-724K (stage 3)
vcr.py           entry -> record, for Visual Commonsense Reasoning (stage 3)
questions.py     entry -> record, for questions as a service asks them
phrasings.py     wordings that the readers draw from
records.py       a record: turns, image path and regions, before image and masks are read
conversation.py  turns -> ids and labels
packing.py       many questions on one image -> ids and labels of one sample
collate.py       samples -> a padded batch
mixture.py       a data config -> a data set; the table of readers; what happens to bad entries
"""
