"""Citations such as "Zeiler & Fergus 2013", and where to read the paper. `docs/references.md` lists them in full."""

from __future__ import annotations

import re

_ARXIV, _DOI = "https://arxiv.org/abs/", "https://doi.org/"
# By first author and year. A paper without a DOI or an arXiv number is listed in docs/references.md alone.
LINKS = {
    "achtibat-2024": f"{_ARXIV}2402.05602",
    "abnar-2020": f"{_ARXIV}2005.00928",
    "adebayo-2018": f"{_ARXIV}1810.03292",
    "alain-2016": f"{_ARXIV}1610.01644",
    "bach-2015": f"{_DOI}10.1371/journal.pone.0130140",
    "barabasz-2020": f"{_ARXIV}1803.10986",
    "bousselham-2024": f"{_ARXIV}2404.03214",
    "canziani-2016": f"{_ARXIV}1605.07678",
    "chattopadhay-2018": f"{_ARXIV}1710.11063",
    "cheng-2021": f"{_ARXIV}2107.06278",
    "chollet-2017": f"{_ARXIV}1610.02357",
    "collins-2018": f"{_ARXIV}1806.10206",
    "desai-2020": f"{_DOI}10.1109/WACV45572.2020.9093360",
    "draelos-2020": f"{_ARXIV}2011.08891",
    "everingham-2010": f"{_DOI}10.1007/s11263-009-0275-4",
    "gatys-2015": f"{_ARXIV}1505.07376",
    "guo-2017": f"{_ARXIV}1706.04599",
    "he-2015": f"{_ARXIV}1512.03385",
    "he-2015b": f"{_ARXIV}1502.01852",
    "he-2016": f"{_ARXIV}1603.05027",
    "hendrycks-2019": f"{_ARXIV}1903.12261",
    "hooker-2018": f"{_ARXIV}1806.10758",
    "huang-2016": f"{_ARXIV}1603.09382",
    "huang-2017": f"{_ARXIV}1608.06993",
    "ioffe-2015": f"{_ARXIV}1502.03167",
    "jiang-2021": f"{_DOI}10.1109/TIP.2021.3089943",
    "kindermans-2017": f"{_ARXIV}1711.00867",
    "krizhevsky-2012": f"{_DOI}10.1145/3065386",
    "larsson-2016": f"{_ARXIV}1605.07648",
    "lavin-2016": f"{_ARXIV}1509.09308",
    "lecun-1998": f"{_DOI}10.1109/5.726791",
    "lee-2015": f"{_ARXIV}1409.5185",
    "lin-2013": f"{_ARXIV}1312.4400",
    "lomb-1976": f"{_DOI}10.1007/BF00648343",
    "long-2015": f"{_ARXIV}1411.4038",
    "luby-1988": f"{_DOI}10.1137/0217022",
    "montavon-2019": f"{_DOI}10.1007/978-3-030-28954-6_10",
    "morcos-2018": f"{_ARXIV}1803.06959",
    "muhammad-2020": f"{_ARXIV}2008.00299",
    "nguyen-2016": f"{_ARXIV}1602.03616",
    "nie-2018": f"{_ARXIV}1805.07039",
    "olah-2017": f"{_DOI}10.23915/distill.00007",
    "olah-2020": f"{_DOI}10.23915/distill.00024.001",
    "oquab-2023": f"{_ARXIV}2304.07193",
    "petsiuk-2018": f"{_ARXIV}1806.07421",
    "petsiuk-2021": f"{_ARXIV}2006.03204",
    "rong-2022": f"{_ARXIV}2202.00449",
    "ronneberger-2015": f"{_ARXIV}1505.04597",
    "scargle-1982": f"{_DOI}10.1086/160554",
    "selvaraju-2017": f"{_ARXIV}1610.02391",
    "sermanet-2013": f"{_ARXIV}1312.6229",
    "shrikumar-2017": f"{_ARXIV}1704.02685",
    "simonyan-2013": f"{_ARXIV}1312.6034",
    "simonyan-2014": f"{_ARXIV}1409.1556",
    "sixt-2020": f"{_ARXIV}1912.09818",
    "smilkov-2017": f"{_ARXIV}1706.03825",
    "springenberg-2014": f"{_ARXIV}1412.6806",
    "srivastava-2015": f"{_ARXIV}1507.06228",
    "sundararajan-2017": f"{_ARXIV}1703.01365",
    "szegedy-2014": f"{_ARXIV}1409.4842",
    "szegedy-2016": f"{_ARXIV}1602.07261",
    "tan-2019": f"{_ARXIV}1905.11946",
    "tian-2019": f"{_ARXIV}1904.01355",
    "venna-2001": f"{_DOI}10.1007/3-540-44668-0_68",
    "vinogradova-2020": f"{_ARXIV}2002.11434",
    "wang-2020": f"{_ARXIV}1910.01279",
    "yosinski-2015": f"{_ARXIV}1506.06579",
    "zagoruyko-2016": f"{_ARXIV}1605.07146",
    "zeiler-2013": f"{_ARXIV}1311.2901",
    "zhai-2019": f"{_ARXIV}1811.12649",
    "zhang-2018": f"{_ARXIV}1608.00507",
    "zhou-2018": f"{_ARXIV}1806.02891",
    "zhu-2021": f"{_ARXIV}2010.04159",
}
# "Nie 2018", "Nie et al. 2018", "Zeiler & Fergus 2013", "Olah, Mordvintsev & Schubert 2017", 'Lin et al., "Network …", 2013'
CITATION = re.compile(
    r"\b([A-Z][A-Za-z'’-]+)(?:, [A-Z][A-Za-z-]+)*(?:\s+(?:&|and)\s+[A-Z][A-Za-z-]+|\s+et\s+al\.)?,?"
    r"(?:\s+\"[^\"]{5,120}\",)?\s+((?:19|20)\d\d[a-d]?)\b"
)


def key(citation: re.Match[str]) -> str:
    """`zeiler-2013` of a match of `CITATION`: first author and year."""
    return f"{citation[1].lower()}-{citation[2]}"


def split(text: str) -> list[tuple[str, str | None]]:
    """A text in pieces, each with the address of the paper that it cites, or None."""
    pieces, done = list[tuple[str, str | None]](), 0
    for found in CITATION.finditer(text):
        if key(found) in LINKS:
            pieces += [(text[done : found.start()], None), (found[0], LINKS[key(found)])]
            done = found.end()
    return [piece for piece in [*pieces, (text[done:], None)] if piece[0]]
