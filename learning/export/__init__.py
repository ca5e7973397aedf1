"""Write submissions as a versioned training data set, and read a version back.

In reading order:

    version.py          `export_version`, `read_export`; the files of a version are listed there
    manifest.py         manifest.json and the names of versions
    staging.py          the hidden folder in which a version is written
    counts.py           the content of an export before any layout, and its counts
    splits.py           which images are held out
    image_folder.py     the images of a version
    layouts.py          the files of each layout:
    click_questions.py      the questions of a click
    osprey_724k.py          the five files of the paper
    categories.py           categories and wrong categories for yes/no questions
    coco.py                 COCO
    parquet.py              Parquet
    data_card.py        README.md of a version
    samples.py          the pictures in it
"""
