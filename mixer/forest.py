from __future__ import annotations
import numpy as np, lightgbm
from mixer import walk
class Unsupported(Exception): pass
class Forest:
    ratio=1e9
    @classmethod
    def compile(cls, model, num_iteration=None):
        text = model if isinstance(model,str) else model.model_to_string(num_iteration=num_iteration)
        head, *blocks = text.split("\nTree=")
        blocks[-1]=blocks[-1].split("\nend of trees")[0]
        H=dict(l.partition("=")[::2] for l in head.splitlines())
        trees=[]
        for b in blocks:
            trees.append(dict(l.partition("=")[::2] for l in b.splitlines()))
        cutsets={}; cols={}; catcols={}
        T=[]
        for t in trees:
            L=int(t["num_leaves"])
            d=dict(L=L,leaf=np.array(t["leaf_value"].split(),float))
            if L>1:
                for k in ("split_feature","decision_type","left_child","right_child"): d[k]=np.array(t[k].split(),int).tolist()
                d["threshold"]=np.array(t["threshold"].split(),float).tolist()
                if int(t["num_cat"]):
                    d["cb"]=np.array(t["cat_boundaries"].split(),int).tolist(); d["ct"]=np.array(t["cat_threshold"].split(),np.uint32)
                for f,dt,th in zip(d["split_feature"],d["decision_type"],d["threshold"]):
                    if not dt&1: cutsets.setdefault(f,set()).add(th)
            T.append(d)
        cuts={f:np.unique(np.array(list(s))) for f,s in sorted(cutsets.items())}
        variants={}
        for d in T:
            if d["L"]==1: continue
            d["key"]=[]
            for f,dt,th in zip(d["split_feature"],d["decision_type"],d["threshold"]):
                if dt&1:
                    i=int(th); w=d["ct"][d["cb"][i]:d["cb"][i+1]].tobytes()
                    catcols.setdefault((f,w),len(catcols)); d["key"].append((f,w))
                else:
                    m=len(cuts[f]); z=int(np.searchsorted(cuts[f],0.0)); left=dt&2; mt=dt>>2&3
                    k={0:(z,z),1:(0,0) if left else (m,m),2:((0 if left else m),z)}[mt]
                    variants.setdefault(f,{}).setdefault(k,None); d["key"].append((f,k))
        numbers=[];stand=[];colof={};c=0
        for f,cs in cuts.items():
            numbers.append((f,c,len(stand)));c+=len(cs)
            for k in variants[f]: colof[f,k]=len(stand); stand.append(k)
        numbers.append((0,c,len(stand)))
        cats=[];words=[];c=0
        for (f,w),i in catcols.items():
            cats.append((f,c));ww=np.frombuffer(w,np.uint32);words.append(ww);c+=len(ww);colof[f,w]=len(stand)+i
        cats.append((0,c))
        nodes=[];leaves=[];starts=[0]
        for d in T:
            if d["L"]==1: order=[0]
            else:
                order=[];stack=[0];base=len(nodes);open_=[]
                # iterative preorder
                stack=[(0,None)]
                while stack:
                    n,parent=stack.pop()
                    if parent is not None: nodes[parent][3]=len(order)
                    if n<0: order.append(~n);continue
                    f,th=d["split_feature"][n],d["threshold"][n]
                    cut=0 if d["decision_type"][n]&1 else int(np.searchsorted(cuts[f],th))
                    me=len(nodes);nodes.append([colof[d["key"][n]],cut,len(order),0])
                    stack.append((d["right_child"][n],me));stack.append((d["left_child"][n],None))
            leaves.append(d["leaf"][order]);starts.append(starts[-1]+d["L"])
        s=cls()
        wide=max([len(x) for x in cuts.values()]+[d["L"]-1 for d in T])>255
        s.args=(np.concatenate([*cuts.values(),np.empty(0)]),np.array(numbers,np.int32).reshape(-1,3),np.array(stand,np.uint16).reshape(-1,2),np.array(cats,np.int32).reshape(-1,2),
          np.concatenate([*words,np.empty(0,np.uint32)]),np.array(nodes,np.uint16).reshape(-1,4),np.array(starts,np.int64),np.concatenate(leaves),np.empty(0,np.uint16 if wide else np.uint8))
        return s
    def score(self,X):
        out=np.zeros(len(X)); walk.score(X,*self.args,self.ratio,out); return out
